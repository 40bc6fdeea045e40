"""An OpenAI-compatible server over a checkpoint, as a program of its own: for tests, on loopback.

It does what vLLM and SGLang do with the questions that vqmon asks, with transformers and nothing of
vqmon: pictures inline, greedy text, the likeliest tokens, going on with a message that was begun,
JSON by a schema. The name of the model chooses how it misbehaves (see FAULTS).

    python writer_server.py CHECKPOINT [TOKEN]        prints its port on one line
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = (
    "slow",  # answers after four seconds
    "drips",  # sends a byte now and then
    "dies",  # closes the connection in the middle of its answer
    "garbage",  # 200, and a page for people
    "nonsense",  # 200 and JSON of another kind
    "silent",  # tells no probabilities
    "refuses",  # 400 for everything optional
    "begins-anew",  # takes a begun message for a finished one
    "busy",  # 429
    "broken",  # 500
    "too-large",  # 413
    "moved",  # 307
    "rambles",  # keeps to no form unless a schema makes it
    "trims",  # strips a begun message before it goes on
    "forgets",  # goes on once, then answers 503
)


class Model:
    """The checkpoint, for one request at a time."""

    def __init__(self, folder: str) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.torch.set_num_threads(1)
        transformers: Any = importlib.import_module("transformers")
        self.lock = threading.Lock()
        self.network = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.images = transformers.AutoImageProcessor.from_pretrained(folder)
        self.ends = set(self.network.generation_config.eos_token_id)

    def inputs(self, messages: list[Any], *, goes_on: bool) -> dict[str, Any]:
        """Tokens and pixels of a conversation."""
        text = self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
        pictures = [
            picture(part["image_url"]["url"])
            for message in messages
            if isinstance(message["content"], list)
            for part in message["content"]
            if part["type"] == "image_url"
        ]
        seen = self.images(images=pictures, return_tensors="pt")
        for grid in seen["image_grid_thw"]:
            text = text.replace("<|image_pad|>", "<|placeholder|>" * int(grid.prod() // 4), 1)
        text = text.replace("<|placeholder|>", "<|image_pad|>")
        tokens = self.tokenizer(text, return_tensors="pt")["input_ids"]
        kinds = (tokens == self.tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
        return {"input_ids": tokens, "mm_token_type_ids": kinds, **seen}

    def write(self, messages: list[Any], most: int, *, goes_on: bool) -> tuple[list[Any], str]:
        """Tokens with their likeliest rivals, and why it ended."""
        found: list[Any] = []
        with self.lock, self.torch.inference_mode():
            said = self.network(**self.inputs(messages, goes_on=goes_on), use_cache=True)
            while len(found) < most:
                logs = said.logits[0, -1].log_softmax(-1)
                token = int(logs.argmax())
                if token in self.ends:
                    return found, "stop"
                found.append(self.told(token, logs))
                said = self.network(
                    input_ids=self.torch.tensor([[token]]),
                    past_key_values=said.past_key_values,
                    use_cache=True,
                )
        return found, "length"

    def told(self, token: int, logs: Any) -> dict[str, Any]:
        best = logs.topk(20)
        rivals = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {
            "token": self.tokenizer.decode([token]),
            "logprob": float(logs[token]),
            "bytes": None,
            "top_logprobs": [
                {"token": self.tokenizer.decode([one]), "logprob": chance, "bytes": None}
                for one, chance in rivals
            ],
        }


def picture(url: str) -> Any:
    from PIL import Image

    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64", kind
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def by_schema(schema: Any) -> str:
    """The first thing that a schema allows."""
    values = {
        name: one.get("enum", ["blocky" if one["type"] == "string" else 2.5])[0]
        for name, one in schema["properties"].items()
    }
    return json.dumps(values)


class Handler(BaseHTTPRequestHandler):
    model: Model
    token = ""
    continued = 0
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models" and self.allowed():
            self.give(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})
        elif self.path == "/two/v1/models":
            self.give(200, {"object": "list", "data": [{"id": "one"}, {"id": "two"}]})
        elif self.path != "/v1/models":
            self.give(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fault = body["model"].partition("-")[2]
        if self.path != "/v1/chat/completions":
            self.give(404, {"detail": "Not Found"})
        elif self.allowed() and not self.failed(fault, body):
            self.answer(fault, body)

    def allowed(self) -> bool:
        if self.token and self.headers["authorization"] != f"Bearer {self.token}":
            self.give(401, {"error": {"message": "Unauthorized", "code": 401}})
            return False
        return True

    def failed(self, fault: str, body: dict[str, Any]) -> bool:
        """True when the fault was all of the answer."""
        goes_on = body.get("continue_final_message", False)
        optional = {"logprobs", "continue_final_message", "response_format"} & body.keys()
        if body["model"].partition("-")[0] != "tiny":
            message = f"The model `{body['model']}` does not exist."
            self.give(404, {"error": {"message": message, "type": "NotFoundError"}})
        elif fault == "busy":
            self.give(429, {"error": {"message": "too many requests"}}, **{"retry-after": "7"})
        elif fault == "broken":
            self.give(500, {"error": {"message": "CUDA error"}})
        elif fault == "too-large":
            self.give(413, {"error": {"message": "Request Entity Too Large"}})
        elif fault == "moved":
            self.give(307, {}, location="https://elsewhere.invalid/v1/chat/completions")
        elif fault == "refuses" and optional:
            self.give(400, {"object": "error", "message": f"unknown: {', '.join(optional)}"})
        elif fault == "garbage":
            self.give(200, b"<html><body>Welcome!</body></html>")
        elif fault == "nonsense":
            self.give(200, {"choices": "many"})
        elif fault == "forgets" and goes_on and body["max_tokens"] > 1:
            self.give(503, {"error": {"message": "overloaded"}})
        elif fault in ("dies", "drips"):
            self.break_off(fault)
        else:
            return False
        return True

    def break_off(self, fault: str) -> None:
        self.send_response(200)
        self.send_header("content-length", "100000")
        self.end_headers()
        for _ in range(1 if fault == "dies" else 40):
            self.wfile.write(b'{"choices": ' if fault == "dies" else b" ")
            self.wfile.flush()
            time.sleep(0.1)
        self.close_connection = True

    def answer(self, fault: str, body: dict[str, Any]) -> None:
        if fault == "slow":
            time.sleep(4)
        if "response_format" in body:
            text = by_schema(body["response_format"]["json_schema"]["schema"])
            self.complete(text, None, "stop")
            return
        if fault == "rambles":
            self.complete("I would rather not say.", None, "stop")
            return
        goes_on = body.get("continue_final_message", False) and fault != "begins-anew"
        if goes_on and body.get("add_generation_prompt", True):
            self.give(400, {"error": {"message": "Cannot set both."}})
            return
        if goes_on and fault == "trims":
            body["messages"][-1]["content"] = body["messages"][-1]["content"].strip()
        tokens, why = self.model.write(body["messages"], body["max_tokens"], goes_on=goes_on)
        text = "".join(token["token"] for token in tokens)
        told = body.get("logprobs") and fault != "silent"
        if told and body.get("top_logprobs", 0) > 20:
            self.give(400, {"error": {"message": "top_logprobs is at most 20"}})
            return
        self.complete(text, {"content": tokens} if told else None, why)

    def complete(self, text: str, logprobs: Any, why: str) -> None:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": why}
        self.give(200, {"id": "1", "object": "chat.completion", "choices": [choice]})

    def give(self, status: int, answer: Any, **headers: str) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    Handler.model = Model(sys.argv[1])
    Handler.token = sys.argv[2] if len(sys.argv) > 2 else ""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
