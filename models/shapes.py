"""Names for tensor shapes in annotations.

Annotations are never evaluated at run time (`from __future__ import annotations`), so a registered
model loads without jaxtyping; the tests install jaxtyping's import hook, which checks every call.
"""

from __future__ import annotations

try:
    from jaxtyping import Bool, Float, Int, Num, UInt8
except ImportError:  # a registered model's environment has torch, safetensors and numpy only
    Bool = Float = Int = Num = UInt8 = None
