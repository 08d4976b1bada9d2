"""Where in its depth a model decides."""

import pandas as pd

from cbd.report.figures import drawing
from cbd.report.findings.decisions import FAVOURITE, LEAD, MARGIN, phases

READ = {
    LEAD: "accuracy above guessing",
    MARGIN: "decision margin (nats)",
    FAVOURITE: "surplus of the favourite option",
}


@drawing.captioned
def decisions(table: pd.DataFrame) -> drawing.Drawn:
    """What each model of the chain says after its first blocks, a column a task."""
    found = phases(table)
    models = list(dict.fromkeys(found["source"]))
    shown = {metric: name for metric, name in READ.items() if metric in set(found["metric"])}
    tasks = {task: task for task in dict.fromkeys(found["task"])}
    figure, panels = drawing.grid(shown, tasks, "share of the blocks")
    looks = {
        model: {"color": str(0.1 + 0.65 * i / len(models)), "marker": "osD^vP"[i % 6], "linestyle": "-"}
        for i, model in enumerate(models)
    }
    for (metric, task), axes in panels.items():
        axes.axhline(0, **drawing.CHANCE)
        for model, look in looks.items():
            rows = found.query("metric == @metric and task == @task and source == @model")
            drawing.curve(axes, rows, "share", look)
    drawing.legend(figure, looks, len(looks))
    text = "The source and its anchors, read by their own last norm and head after their first blocks."
    return figure, f"{text} Dotted: what guessing gets.", [found]


FIGURES = {"decisions": decisions}
