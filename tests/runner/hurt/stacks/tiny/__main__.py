"""Deploys the plan that envctl has made.  Any other Pulumi resource that the system needs belongs here too."""

from envctl.stack import deploy

deploy()
