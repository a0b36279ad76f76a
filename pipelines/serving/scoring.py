"""MLflow's loading and scoring server, for these models: requests as they came, refusals as one sentence."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from . import deadline, rest
from .params import limit

log = logging.getLogger(__name__)


class Refused(MlflowException, ValueError):
    """A request that is refused, with the sentence that callers are shown.

    MLflow's server puts the whole request before the message of an exception; this one's stays as it is.
    """

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The sentence."""
        return self._sentence

    @message.setter
    def message(self, value: str) -> None:
        """What others make of the sentence is not kept."""


def answer_requests_ourselves() -> None:
    """Have MLflow hand rows and parameters of these models on as they came, from Python and over HTTP.

    MLflow drops parameters that a signature does not list, casts rows to the one signature of the default task
    though each task takes its own, and answers mistakes with a stack trace. Models of others are left to it: ours
    are known by their parameters. Where a later MLflow has other functions, it does as it always does.
    """
    from mlflow import pyfunc
    from mlflow.pyfunc import scoring_server

    ours = {"task", "n", "seed", "label", "steps", "draws", "sigma", "strength"}  # of every version so far

    def wrap(module: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original = getattr(module, name, None)
        if original is None:
            return
        original = getattr(original, "of_mlflow", original)
        wrapped = functools.wraps(original)(make(original))
        wrapped.of_mlflow = original  # type: ignore[attr-defined]
        setattr(module, name, wrapped)

    def is_ours(schema: Any) -> bool:
        return schema is not None and ours <= {param.name for param in schema.params}

    def validating(original: Callable[..., Any]) -> Callable[..., Any]:
        def validate(data: Any, params: Any, input_schema: Any, params_schema: Any, *rest: Any, **more: Any) -> Any:
            if not is_ours(params_schema):
                return original(data, params, input_schema, params_schema, *rest, **more)
            if params is not None and not isinstance(params, Mapping):
                raise Refused(f'params must be a dict, such as {{"task": "describe"}}, got {type(params).__name__}.')
            return data, {str(name): value for name, value in (params or {}).items()}

        return validate

    def answering(original: Callable[..., Any]) -> Callable[..., Any]:
        def answer(data: Any, content_type: Any, model: Any, input_schema: Any) -> Any:
            if not is_ours(model.metadata.get_params_schema()):
                return original(data, content_type, model, input_schema)
            try:
                deadline.check()  # it may have waited for long
                rows, params = rest.parse(data, content_type, limit("FIVEFOLD_MAX_REQUEST_BYTES"))
                text = rest.answer(model.predict(rows, params=params))
            except MlflowException:
                raise
            except (ValueError, TimeoutError, RecursionError) as error:
                raise Refused(str(error)) from None
            except Exception as error:
                log.exception("A request failed.")
                raise MlflowException(
                    f"The model failed ({type(error).__name__}), the request was understood: see the server's log."
                ) from None
            return scoring_server.InvocationsResponse(response=text, status=200, mimetype="application/json")

        return answer

    def catching(original: Callable[..., Any]) -> Callable[..., Any]:
        def catch(handle: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(handle)
            async def limited(request: Any) -> Any:
                try:
                    return await deadline.answered(handle, request, limit("FIVEFOLD_MAX_REQUEST_BYTES"))
                except ValueError as error:
                    raise error if isinstance(error, Refused) else Refused(str(error)) from None

            return original(limited)

        return catch

    wrap(pyfunc, "_validate_prediction_input", validating)
    wrap(scoring_server, "_async_catch_mlflow_exception", catching)
    wrap(scoring_server, "invocations", answering)
