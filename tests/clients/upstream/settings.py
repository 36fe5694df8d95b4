"""What the hub process is told at its start; handed over as a JSON file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

SERVICE = "registry.docker.io"
ISSUER = "auth.docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the parts listen, who may log in, and which repositories there are."""

    origin: str
    front_port: int
    token_port: int
    cdn_port: int
    control_port: int
    storage: str
    key_file: str
    username: str
    pat: str
    public: list[str]
    private: list[str]

    @property
    def cdn_url(self) -> str:
        return f"http://127.0.0.1:{self.cdn_port}"

    def write(self, file: Path) -> None:
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Self:
        return cls(**json.loads(file.read_text()))
