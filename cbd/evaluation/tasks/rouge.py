"""Rouge-L of a generated text, for lm-eval tasks, which load this file by name."""

from rouge_score.rouge_scorer import RougeScorer

SCORER = RougeScorer(["rougeL"], use_stemmer=True)


def first_line(doc: dict, results: list[str]) -> dict[str, float]:
    """As `score`, of the first line that holds anything."""
    lines = [line for line in results[0].splitlines() if line.strip()]
    return score(doc, lines[:1] or [""])


def score(doc: dict, results: list[str]) -> dict[str, float]:
    """Rouge-L F1 in [0, 1] against the document's "response" (or "summary"), with Porter stemming."""
    reference = doc["response"] if "response" in doc else doc["summary"]
    return {"rougeL": SCORER.score(reference, results[0])["rougeL"].fmeasure}
