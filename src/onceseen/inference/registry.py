"""Which models there are, and which one a name means. A snapshot: it is made anew when something changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from onceseen.domain.model import DIALECT_DEFAULTS, DIALECTS, LIVE, ModelRow
from onceseen.errors import UnknownModel
from onceseen.inference import finish
from onceseen.inference.manifest import Manifest, from_json
from onceseen.wire.http import ModelOut, Prediction, moment

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Model:
    """One version of a model."""

    row: ModelRow
    manifest: Manifest

    @property
    def ref(self) -> str:
        """NAME:VERSION."""
        return self.row.ref

    @property
    def lane(self) -> bytes:
        """The lane of its tasks: the content digest, so that equal models share answers."""
        return self.row.content_digest

    @cached_property
    def positive(self) -> tuple[int, ...]:
        """Outputs whose label counts as a find."""
        return self.manifest.positive_indices

    def judge(self, result: bytes | None) -> tuple[float | None, int | None]:
        """(risk, found) of an answer; (None, None) for a model without positive labels or a failed task."""
        if result is None or not self.positive:
            return None, None
        risk = finish.risk(result, self.positive)
        threshold = self.manifest.threshold
        return risk, int(risk >= (DEFAULT_THRESHOLD if threshold is None else threshold))


class Catalog:
    """All models, by reference and by lane."""

    def __init__(self, rows: Iterable[ModelRow] = (), defaults: Mapping[str, str] | None = None) -> None:
        self.models = [Model(row, from_json(row.manifest)) for row in rows]
        self._defaults = dict(defaults or {})
        self._by_ref = {model.ref: model for model in self.models}
        self._live = {model.row.name: model for model in self.models if model.row.stage == LIVE}
        self._by_lane: dict[bytes, Model] = {}
        for model in self.models:
            known = self._by_lane.get(model.lane)
            if known is None or (model.row.stage == LIVE and known.row.stage != LIVE):
                self._by_lane[model.lane] = model

    def resolve(self, ref: str | None, dialect: str = "v1") -> Model:
        """The model that NAME, NAME:VERSION or nothing means.

        Raises:
            UnknownModel: says which there are, or how to choose a default.
        """
        if not ref:
            return self._default(dialect)
        model = self._by_ref.get(ref) or self._live.get(ref)
        if model is None:
            raise UnknownModel(f"There is no model {ref!r}; {self._known()}.")
        return model

    def judge(self, ref: str, result: bytes | None) -> tuple[float | None, int | None]:
        """(risk, found) by the manifest of the version that was asked for."""
        model = self._by_ref.get(ref)
        return model.judge(result) if model else (None, None)

    def of_lane(self, lane: bytes) -> Model | None:
        """A model whose content this lane is; a live one where there is one."""
        return self._by_lane.get(lane)

    def default_ref(self, dialect: str) -> str | None:
        """What a client of this dialect gets that names no model; None when nobody has chosen and the usual one is not there."""
        usual = DIALECT_DEFAULTS.get(dialect)
        return self._defaults.get(dialect) or (usual if usual in self._live else None)

    def defaults(self) -> dict[str, str | None]:
        """All dialects and what answers their clients that name no model."""
        return {dialect: self.default_ref(dialect) for dialect in DIALECTS}

    def default_for(self, model: Model) -> list[str]:
        """Dialects that use this version when no model is named."""
        names = (model.ref, model.row.name) if self._live.get(model.row.name) is model else (model.ref,)
        return [dialect for dialect in DIALECTS if self.default_ref(dialect) in names]

    def predictions(
        self, lane: bytes | None, result: bytes | None, score: float | None, k: int | None = None
    ) -> list[Prediction]:
        """The best labels of an answer with their scores, at most k (the manifest's `top`)."""
        model = self._by_lane.get(lane) if lane else None
        if model is None or result is None:
            return []
        labels = model.manifest.labels
        best = [
            Prediction(index, labels[index], round(value, 6))
            for index, value in finish.top(result, k or model.manifest.top)
        ]
        if best and score is not None:
            best[0].score = score  # the record holds the first score whole, the others as float16
        return best

    def _default(self, dialect: str) -> Model:
        ref = self.default_ref(dialect)
        if ref and (model := self._by_ref.get(ref) or self._live.get(ref)):
            return model
        if len(self._live) == 1:
            return next(iter(self._live.values()))
        raise UnknownModel(
            f"No model was named and {dialect!r} has no default; name one (?model=NAME) or set it "
            f"(onceseen models default {dialect} NAME); {self._known()}."
        )

    def _known(self) -> str:
        names = ", ".join(sorted(self._live)) or "none; add one with `onceseen models add PATH`"
        return f"there is {names}" if len(self._live) < 2 else f"there are {names}"


def model_out(catalog: Catalog, model: Model, images: int = 0, ms: float | None = None) -> ModelOut:
    """A model as others read it; `images` went through it so far, `ms` is what one costs."""
    manifest = model.manifest
    return ModelOut(
        name=model.row.name,
        version=model.row.version,
        stage=model.row.stage,
        task=manifest.task,
        runtime=manifest.runtime,
        labels=len(manifest.labels),
        positive=list(manifest.positive),
        content_digest=model.lane.hex(),
        default_for=catalog.default_for(model),
        created_at=moment(model.row.created_at),
        images=images,
        ms_per_image=None if ms is None else round(ms, 3),
    )
