"""Columns of the volume signal."""

from models.volume import COUNTERS, GAUGES, HOURS, TOOLS
from stream.state.table import Column

KEYS = 16
"""Keys that a tenant is remembered by; the one not seen for longest gives way."""
RECENT_CALLS = 4
"""A tool call that equals one of so many before it repeats: a loop may go through several tools."""

KEY_COLUMNS = (
    Column("volume_key", "<u8", (KEYS,)),
    Column("volume_key_seen", "<u4", (KEYS,)),
    Column("volume_key_agents", "<u4", (KEYS, 2)),
    Column("volume_key_networks", "<u4", (KEYS, 2)),
    Column("volume_key_window", "<i4", (KEYS,)),
    Column("volume_key_counts", "<i4", (KEYS, 3)),
)
"""Hash, 0 where there is none; core time of its last call in s; hashes of the last two user agents and networks, the
older first; the number of the window it last called in, and its calls, tokens and failures there."""
TENANT_COLUMNS = (
    Column("volume_counts", "<i4", (len(GAUGES),)),
    Column("volume_sums", "<i4", (len(GAUGES),)),
    Column("volume_squares", "<i8", (len(GAUGES),)),
    Column("volume_counted", "<i4", (len(COUNTERS),)),
    Column("volume_hours_counted", "<u2", (HOURS,)),
    *KEY_COLUMNS,
)
"""What changes with each batch: sums since the last learn point (`models.volume.Lesson`), and keys."""
LEARNED_COLUMNS = (
    Column("volume_gauges", "<f4", (len(GAUGES), 3)),
    Column("volume_counters", "<f4", (len(COUNTERS),)),
    Column("volume_hours", "<f4", (HOURS,)),
)
"""`models.volume.Baseline`."""
SESSION_COLUMNS = (
    Column("volume_calls", "<u8", (RECENT_CALLS,)),
    Column("volume_repeats", "<i4"),
    Column("volume_growth", "<i4", (TOOLS,)),
    Column("volume_errors", "<i4"),
    Column("volume_new", "u1"),
)
"""Hashes of the last tool calls, the oldest first; how many of the last in a row were repetitions; CUSUM of the sizes
of each tool's arguments, and of failures; a bit each once there was a new key, a new user agent, a new network."""
