"""The work of a quantization, in the terms that its time and its memory are estimated in."""

from dataclasses import dataclass, field

from ...models.config import ModelConfig
from ..quantize.calibration import WINDOW
from ..quantize.decide import Decision
from ..quantize.formats.scheme import Schemes
from ..quantize.layers.sensitivity import WINDOWS as SENSITIVITY_WINDOWS
from ..quantize.solve import SMOOTHED, SMOOTHING_WINDOWS
from ..quantize.texts.names import SELF
from .shapes import Layer, Projection, layers


@dataclass(frozen=True)
class Work:
    """What a quantization reads and solves.

    Args:
        formats: how many formats the sensitivity of a weight is measured in.
    """

    config: ModelConfig
    decision: Decision
    schemes: Schemes
    prefix: str
    formats: int
    layers: list[Layer] = field(default_factory=list)

    @classmethod
    def of(cls, config: ModelConfig, decision: Decision, schemes: Schemes, prefix: str, formats: int) -> "Work":
        return cls(config, decision, schemes, prefix, formats, layers(config))

    @property
    def length(self) -> int:
        """The tokens of a window."""
        return min(WINDOW, self.config.context_length)

    @property
    def windows(self) -> int:
        return 0 if self.decision.calibration is None else self.decision.calibration.windows

    @property
    def tokens(self) -> int:
        return self.windows * self.length

    @property
    def few_tokens(self) -> int:
        """The tokens on which sensitivities are measured."""
        return min(SENSITIVITY_WINDOWS, self.windows) * self.length if self.decision.mixes else 0

    @property
    def smoothing_tokens(self) -> int:
        """The tokens on which scales to fold are searched."""
        folds = self.decision.method in ("awq", "smoothquant")
        return min(SMOOTHING_WINDOWS, self.windows) * self.length if folds else 0

    @property
    def generated(self) -> int:
        """The windows that the model writes itself."""
        if self.decision.calibration is None or SELF not in self.decision.calibration.texts:
            return 0
        return -(-self.windows // len(self.decision.calibration.texts))

    @property
    def solves(self) -> bool:
        """GPTQ runs over the layers."""
        return self.decision.method in ("gptq", "smoothquant") and self.windows > 0

    def solved(self, layer: Layer, one: Projection) -> bool:
        """Return true for a projection that GPTQ solves."""
        name = f"{self.prefix}layers.{layer.index}.{one.name}.weight"
        if self.decision.method == "smoothquant":
            return name.endswith(SMOOTHED)
        scheme = self.schemes.get(name)
        return scheme is not None and scheme.method == "gptq"

    @property
    def vocabulary(self) -> list[tuple[int, int]]:
        """The shapes of the embedding and the LM head where GPTQ solves them."""
        return [
            one.shape
            for one in self.decision.candidates
            if one.per_token and one.tensor in self.schemes and self.schemes[one.tensor].method == "gptq"
        ]
