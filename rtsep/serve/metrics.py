"""Figures of replicas in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from rtsep.serve.replica import Figures

GAUGES = {
    "streams": "Streams now.",
    "places": "Largest number of streams.",
    "draining": "Whether the replica takes no more streams.",
}
COUNTERS = {
    "opened": "Streams that got a place.",
    "resumed": "Streams that went on with the state of another connection.",
    "refused": "Streams refused, because there was no place.",
    "closed": "Streams closed, because the client broke a rule.",
    "frames": "Frames answered.",
    "misses": "Frames answered later than their own duration after they arrived.",
    "late": "Frames that arrived more than 40 ms after their time in the stream.",
}
QUANTILES = {"0.5": "hop_p50_s", "0.99": "hop_p99_s", "0.999": "hop_p999_s"}
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Collector:
    def __init__(self, replicas: Mapping[str, Figures]) -> None:
        self._replicas = replicas

    def collect(self) -> Iterator[Metric]:
        for kind, table in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for name, text in table.items():
                family = kind(f"rtsep_{name}", text, labels=["replica"])
                for replica, figures in self._replicas.items():
                    family.add_metric([replica], float(getattr(figures, name)))
                yield family
        hops = GaugeMetricFamily(
            "rtsep_hop_seconds",
            "Time of one call of the model for all streams that waited.",
            labels=["replica", "quantile"],
        )
        for replica, figures in self._replicas.items():
            for quantile, name in QUANTILES.items():
                hops.add_metric([replica, quantile], getattr(figures, name))
        yield hops


def text(replicas: Mapping[str, Figures]) -> bytes:
    """Return the figures of replicas, by their names, as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(_Collector(replicas))
    return generate_latest(registry)
