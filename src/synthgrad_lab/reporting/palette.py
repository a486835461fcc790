"""One palette for all figures: Okabe and Ito's colours, distinct with any kind of colour vision."""

METHOD = {
    **dict.fromkeys(("no-bprop", "frozen", "cut"), "#8a8a8a"),
    **dict.fromkeys(("bprop", "bptt"), "#000000"),
    "local-loss": "#882255",
    "stale": "#332288",
    "feedback-alignment": "#999933",
    "dni": "#0072B2",
    "cdni": "#E69F00",
    "dni-aux": "#D55E00",
    **dict.fromkeys(("critic", "bp-lambda"), "#117733"),
}
OTHER = "#CC79A7"
"""A method that is not in the palette."""
EVENT = {"forward": "#56B4E9", "loss": "#F0E442", "backward": "#D55E00", "fit": "#CC79A7", "update": "#009E73"}
"""What a layer or a stage does; methods and events share no colour within a figure."""
GRID = "#e5e5e5"
