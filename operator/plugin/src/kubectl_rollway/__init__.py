"""`kubectl rollway`: see and steer ModelDeployments from the command line.

commands ──► cluster, kubeconfig     EFFECT  ask the API server, write annotations
         ──► objects                 PURE    what it answered, as values
         ──► verbs, verdicts, lint   PURE    which revision a verb names, whether a wait is over, what a file lacks
         ──► tables, tree            PURE    values as text
"""

__version__ = "0.1.0"
