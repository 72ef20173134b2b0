"""What watches a running application, and says once what is wrong.

`health` asks probes how subjects are, and `chart` decides what their answers mean;
`resources` reads gauges against limits, judged by `pressure`, and hands out tokens;
`performance` keeps how long operations take; `readings` reads numbers now and then.
`alarms` is what is wrong, by rules over readings. `crew` keeps their tasks running,
`listeners` tells whoever wants to know, `monitors` ties it all together for a runtime.
"""

from .alarms import (
    Alarm,
    AlarmMove,
    AlarmNews,
    AlarmRule,
    Alarms,
    AlarmsStatistics,
    Severity,
)
from .chart import HealthStatus, Reading
from .crew import Crew, CrewStatistics
from .health import Health, HealthCheck, HealthStatistics, Probe, SubjectHealth
from .listeners import Listeners, ListenersStatistics
from .monitors import Monitors, News, described
from .performance import (
    Ending,
    OperationStatistics,
    Performance,
    PerformanceStatistics,
)
from .pressure import Pressure
from .readings import Readings, ReadingsStatistics, Source
from .resources import (
    GaugeStatistics,
    GaugeUnknown,
    PressureChange,
    Resources,
    ResourcesStatistics,
    Token,
    resident_bytes,
)

__all__ = [
    "Alarm",
    "AlarmMove",
    "AlarmNews",
    "AlarmRule",
    "Alarms",
    "AlarmsStatistics",
    "Crew",
    "CrewStatistics",
    "Ending",
    "GaugeStatistics",
    "GaugeUnknown",
    "Health",
    "HealthCheck",
    "HealthStatistics",
    "HealthStatus",
    "Listeners",
    "ListenersStatistics",
    "Monitors",
    "News",
    "OperationStatistics",
    "Performance",
    "PerformanceStatistics",
    "Pressure",
    "PressureChange",
    "Probe",
    "Reading",
    "Readings",
    "ReadingsStatistics",
    "Resources",
    "ResourcesStatistics",
    "Severity",
    "Source",
    "SubjectHealth",
    "Token",
    "described",
    "resident_bytes",
]
