"""The ways out of the process: requests made, programs run.

Whatever leaves cannot be taken back, so it leaves by a door: first what the sender did
before is committed, then the way must be open, and who is outside when it closes is called
back. `http` keeps the clients by name, `client` is one of them, `http_policy` its rules and
`site` those towards one host, `transport` httpx beneath it, `unpack` how an answer is read,
`tally` what it counts, `http_span` and `http_meter` what telemetry hears; `response` is what
comes back, `address` what may be shown of where it went. `programs` runs programs, each as a `running` one, by a `program_policy`.
"""

from .client import HttpClient
from .http import Http
from .http_policy import HttpPolicy, HttpStatistics, SiteStatistics
from .program_policy import ProgramPolicy, ProgramsStatistics, RunningProgram
from .programs import Programs
from .response import HttpResponse
from .running import ProgramResult

__all__ = [
    "Http",
    "HttpClient",
    "HttpPolicy",
    "HttpResponse",
    "HttpStatistics",
    "ProgramPolicy",
    "ProgramResult",
    "Programs",
    "ProgramsStatistics",
    "RunningProgram",
    "SiteStatistics",
]
