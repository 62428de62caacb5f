"""Whoever keeps an environment: supervises its nodes, answers its clients, and ends it when its lease has run out.

In a cell that is PID 1; where nodes are containers it is a container of envctl's among them.  What differs between them is
how a node is started and entered (`supervisor.Launcher`) and how a client reaches the keeper (`client.Connect`).
Standard library only: it starts fast and stays small.
"""

FIRST_LEASE_S = 60.0  # of an environment whose maker was killed before it could say how long to live
