"""What the dashboards are made of: queries, the three kinds of panels, and the variables that they share."""

from collections.abc import Sequence
from typing import Self

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "rollway"
_HEIGHT, _LOW = 8, 4
_COLUMNS = 24
_LETTERS = "ABCDEFGHIJ"


class Query:
    """An expression, and what its series are called: `{{label}}` stands for a label's value."""

    def __init__(self, expression: str, legend: str = "") -> None:
        """Ask for the expression's course over time."""
        self.expression = " ".join(expression.split())
        self.legend = legend

    def over_time(self, letter: str) -> prometheus.Dataquery:
        """The course of it."""
        return self._query(letter).range()

    def now(self, letter: str) -> prometheus.Dataquery:
        """The value at the end of the time that is looked at."""
        return self._query(letter).instant()

    def rows(self, letter: str) -> prometheus.Dataquery:
        """The value at the end, with a column for each label."""
        return self._query(letter).instant().format(PromQueryFormat.TABLE)

    def _query(self, letter: str) -> prometheus.Dataquery:
        query = prometheus.Dataquery().ref_id(letter).expr(self.expression).datasource(SOURCE)
        return query.legend_format(self.legend) if self.legend else query


def graph(
    title: str, *queries: Query, unit: str = "short", width: int = 8, why: str = ""
) -> timeseries.Panel:
    """Lines over time; `width` in 24ths of the dashboard's."""
    legend = (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
    )
    panel = (
        timeseries.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .unit(unit)
        .axis_soft_min(0)
        .fill_opacity(0)
        .legend(legend)
        .height(_HEIGHT)
        .span(width)
    )
    for letter, query in zip(_LETTERS, queries, strict=False):
        panel = panel.with_target(query.over_time(letter))
    return panel


def number(
    title: str, *queries: Query, unit: str = "short", width: int = 3, none: str = "none", why: str = ""
) -> stat.Panel:
    """A number that is read from afar, for each series."""
    return _big(title, queries, width, none, why).unit(unit).text_mode(BigValueTextMode.AUTO)


def word(title: str, *queries: Query, width: int = 3, none: str = "none", why: str = "") -> stat.Panel:
    """A word that is read from afar: the legend of each series."""
    return _big(title, queries, width, none, why).text_mode(BigValueTextMode.NAME)


def _big(title: str, queries: Sequence[Query], width: int, none: str, why: str) -> stat.Panel:
    panel = (
        stat.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .no_value(none)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.NONE)
        .height(_LOW)
        .span(width)
    )
    for letter, query in zip(_LETTERS, queries, strict=False):
        panel = panel.with_target(query.now(letter))
    return panel


def rows(
    title: str, columns: Sequence[tuple[str, Query]], *, width: int = _COLUMNS, why: str = ""
) -> table.Panel:
    """A table with a row for each set of labels that the queries share, and a column for each query's value.

    A query whose column is called "" gives its labels alone.
    """
    names = {f"Value #{letter}": name for letter, (name, _) in zip(_LETTERS, columns, strict=False)}
    if len(columns) == 1:
        # Grafana gives the values of an only query no letter.
        names = {"Value": columns[0][0]}
    panel = (
        table.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .height(_HEIGHT)
        .span(width)
        .with_transformation(DataTransformerConfig("merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": {"Time": True} | {key: True for key, name in names.items() if not name},
                    "renameByName": {key: name for key, name in names.items() if name},
                },
            )
        )
    )
    for letter, (_, query) in zip(_LETTERS, columns, strict=False):
        panel = panel.with_target(query.rows(letter))
    return panel


class Dashboard(dashboard.Dashboard):
    """A dashboard with Rollway's settings, and the data source as its first variable."""

    def __init__(self, title: str, uid: str, why: str) -> None:
        """Begin with no panel; `uid` is what links name, so it never changes."""
        super().__init__(f"Rollway / {title}")
        link = (
            dashboard.DashboardLink("Rollway")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
        self.uid(uid).description(why).tags([TAG]).link(link)
        self.refresh("30s").time("now-1h", "now").timezone("browser")
        self.tooltip(DashboardCursorSync.CROSSHAIR).readonly()
        self.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))

    def choice(self, name: str, query: str, *, every: bool = False) -> Self:
        """Add a variable with the values that a query finds; with `every` all of them are chosen at first."""
        variable = (
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query({"query": query, "refId": name})
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
        )
        if every:
            variable = variable.multi(True).include_all(True).all_value(".*")
        return self.with_variable(variable)

    def row(self, title: str) -> Self:
        """Begin a row."""
        return self.with_row(dashboard.Row(title))
