from cluster.fixture import cluster  # noqa: F401 - for the tests here
from cluster.plugin import kubernetes_plugin  # noqa: F401
