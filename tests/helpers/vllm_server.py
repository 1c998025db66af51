"""Speaks the part of vLLM's protocol that is used; it answers with the question's words backwards.

STAND_IN says how it fails: "dies" or "sleeps".
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tokenizers import Tokenizer

COUNTER = 'vllm:spec_decode_num_{}_tokens_total{{engine="0"}} {}.0'
PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class Handler(BaseHTTPRequestHandler):
    asked = 0
    option: dict[str, str] = {}

    def do_GET(self):
        drafted = json.loads(self.option["--speculative-config"])["num_speculative_tokens"]
        counts = {"draft": drafted * self.asked, "accepted": self.asked}
        self.reply("\n".join(COUNTER.format(*count) for count in counts.items()))

    def do_POST(self):
        type(self).asked += 1
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][-1]["content"]
        tokenizer = Tokenizer.from_file(str(Path(self.option["--model"]) / "tokenizer.json"))
        ids = tokenizer.encode(PROMPT.format(text), add_special_tokens=False).ids
        message = {"content": " ".join(reversed(text.split()))}
        response = {
            "choices": [{"message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": 3},
        }
        self.reply(json.dumps(response))

    def reply(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())


def main(words):
    failure = os.environ.get("STAND_IN")
    if failure == "sleeps":
        time.sleep(60)
    if failure == "dies":
        print("(EngineCore pid=7) ValueError: no room for the KV cache")
        print("RuntimeError: Engine core initialization failed. See root cause above.")
        sys.exit(3)
    Handler.option = dict(zip(words, words[1:]))
    HTTPServer(("127.0.0.1", int(Handler.option["--port"])), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
