"""Rollway's dashboards for Grafana, as code: `python -m rollway_dashboards FOLDER` writes their JSON.

parts.py ──► fleet.py, model.py ──► __main__.py ──► files/dashboards/*.json ──► ConfigMaps ──► Grafana's sidecar
"""
