//! Faults, by kind. A kind can be left out of a run: `--without node-clock`.

use std::{fmt, time::Duration};

/// A process that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The collector of the node; on the embedded bus all services.
    Collector,
    /// A streamer.
    Streamer(usize),
    /// A process of sinks.
    Sinks(usize),
}

/// How a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// At once.
    Now,
    /// At an await: before its so-many-th next poll.
    AfterPolls(u64),
    /// At its so-many-th next durable step, which has no effect then.
    AfterSteps(u64),
    /// With its machine: what was not synced is lost.
    PowerLoss,
    /// Not at all: it shuts down gracefully.
    Gracefully,
}

/// A file that the product keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFile {
    /// The checkpoints.
    Checkpoints,
    /// The spool.
    Spool,
    /// A segment of the embedded bus.
    Segment,
    /// The offset of a durable subscription.
    Offset,
}

/// What happens to a file while its process is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is empty.
    Empty,
    /// Its end is missing.
    Cut,
    /// A bit is another.
    Flip,
    /// It is gone.
    Remove,
}

/// Why something fails, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process ends and starts again.
    Kill {
        /// Which.
        target: Target,
        /// How.
        how: Kill,
        /// When it starts again.
        down: Duration,
    },
    /// A process ends, a file of it is damaged, and it starts again.
    Damage {
        /// Which kind of file.
        file: StateFile,
        /// What happens to it.
        damage: Damage,
        /// When the process starts again.
        down: Duration,
    },
    /// The wall clock of the node steps.
    NodeClock {
        /// By how many milliseconds.
        millis: i64,
    },
    /// The wall clock of the services' host steps.
    ServerClock {
        /// By how many milliseconds.
        millis: i64,
    },
    /// The wall clock of the node is fast or slow.
    NodeDrift {
        /// By how many millionths.
        millionths: i64,
    },
    /// Winter time begins: the node's local time goes back an hour.
    WinterTime,
    /// The wall clock of the node stands still.
    FreezeClock(Duration),
    /// The disk of the services is full.
    DiskFull(Duration),
    /// The disk refuses a share of writes and syncs.
    DiskRefuses(Duration),
    /// The services can open no file.
    NoDescriptors(Duration),
    /// The disk is slow.
    DiskSlow(Duration),
    /// Pod status lags behind the kubelet.
    StatusLag {
        /// By how much.
        by: Duration,
        /// For how long.
        time: Duration,
    },
    /// All log files are rotated, several times in a row.
    Rotate {
        /// How often.
        times: u32,
    },
    /// Open follows stay at rotated files.
    StrandFollows,
    /// Follows and watches end as if complete.
    EndStreams,
    /// Follows and watches break.
    BreakStreams,
    /// The API server is unavailable.
    ApiDown(Duration),
    /// The kubelet is unavailable.
    KubeletDown(Duration),
    /// The container runtime is unavailable.
    RuntimeDown(Duration),
    /// Follows send nothing.
    StallFollows(Duration),
    /// Requests get no answer.
    StallRequests(Duration),
    /// Watches send nothing.
    MuteWatches(Duration),
    /// Log requests are slow.
    SlowLogs(Duration),
    /// Requests are refused with 429.
    ApiBusy(Duration),
    /// Watches must list again.
    ExpireWatches,
    /// A container's log file is removed by hand.
    RemoveLog {
        /// Index of the container.
        container: usize,
    },
    /// A container's log file is truncated by hand.
    TruncateLog {
        /// Index of the container.
        container: usize,
    },
    /// Lines of both outputs are written in another order than they are stamped.
    Interleave {
        /// Index of the container.
        container: usize,
    },
    /// The receiver of the drain reads nothing.
    ReceiverHangs(Duration),
    /// The receiver of the drain refuses connections.
    ReceiverDown(Duration),
    /// The receiver is killed with what its kernel had taken, and starts again.
    ReceiverKilled(Duration),
    /// The receiver is cut off from the network.
    Partition(Duration),
    /// The bus is unavailable.
    BusDown(Duration),
    /// The bus delivers late, out of order and twice.
    BusDisorder(Duration),
    /// Requests to the bus fail, and answers get lost.
    BusErrors(Duration),
    /// Sinks restart one after the other with another number of replicas.
    Scale {
        /// How many replicas.
        replicas: u32,
    },
}

/// Defines the kinds with their names, each once.
macro_rules! kinds {
    ($($kind:ident $name:literal: $what:literal)*) => {
        /// The kinds of what happens: six of ordinary life, then the faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "they are named like the faults")]
        pub enum Kind {
            $($kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Returns the name in traces and on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// Returns what happens, for help.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$kind => $what,)*
                }
            }
        }
    };
}

kinds! {
    Burst "burst": "a container prints many lines at once"
    Exit "exit": "a container exits and is started again"
    Replace "replace": "a pod is deleted and another one takes its place"
    BreakTail "break-tail": "a tail's connection breaks"
    StallTail "stall-tail": "a client reads nothing for a time"
    SmallLogs "small-logs": "logs are rotated at 4 to 256 KiB instead of 10 MiB"
    Kill "kill": "a process is killed, at once or at an await"
    KillAtStep "kill-at-step": "a process is killed between two durable steps"
    PowerLoss "power-loss": "a machine loses power: what was not synced is lost"
    Shutdown "shutdown": "a process shuts down gracefully and is started again"
    Damage "damage": "a state file is emptied, cut, changed or removed while its process is down"
    NodeClock "node-clock": "the node's wall clock steps"
    ServerClock "server-clock": "the wall clock of the services' host steps"
    NodeDrift "node-drift": "the node's wall clock is fast or slow"
    WinterTime "winter-time": "the node's local time goes back an hour"
    FreezeClock "freeze-clock": "the node's wall clock stands still"
    DiskFull "disk-full": "the services' disk is full"
    DiskRefuses "disk-refuses": "a share of writes and syncs fails"
    NoDescriptors "no-descriptors": "the services can open no file"
    DiskSlow "disk-slow": "the services' disk is slow"
    StatusLag "status-lag": "pod status is reported late"
    Rotate "rotate": "all logs are rotated several times in a row"
    StrandFollows "strand-follows": "open follow requests stay at rotated files"
    EndStreams "end-streams": "follow and watch requests end without an error"
    BreakStreams "break-streams": "follow and watch requests break"
    ApiDown "api-down": "the API server is unavailable"
    KubeletDown "kubelet-down": "the kubelet is unavailable"
    RuntimeDown "runtime-down": "the container runtime is unavailable"
    StallFollows "stall-follows": "follow requests send nothing"
    StallRequests "stall-requests": "requests get no answer"
    MuteWatches "mute-watches": "watch requests send nothing"
    SlowLogs "slow-logs": "log requests are slow"
    ApiBusy "api-busy": "requests are refused with 429"
    ExpireWatches "expire-watches": "watch requests expire (410 Gone)"
    RemoveLog "remove-log": "a log file is removed by hand"
    TruncateLog "truncate-log": "a log file is truncated by hand"
    Interleave "interleave": "a container prints lines with timestamps out of order"
    ReceiverHangs "receiver-hangs": "the drain's receiver reads nothing"
    ReceiverDown "receiver-down": "the drain's receiver refuses connections"
    ReceiverKilled "receiver-killed": "the drain's receiver is killed with what its kernel has buffered"
    Partition "partition": "the drain's receiver is cut off from the network"
    BusDown "bus-down": "the bus is unavailable"
    BusDisorder "bus-disorder": "the bus delivers late, out of order and twice"
    BusErrors "bus-errors": "requests to the bus fail, and answers get lost"
    Scale "scale": "sinks restart with another number of replicas"
}

impl Kind {
    /// Returns whether it is a fault, and not ordinary life.
    pub fn is_fault(self) -> bool {
        self > Self::SmallLogs
    }

    /// Returns the kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl Fault {
    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Kill { how, .. } => match how {
                Kill::Now | Kill::AfterPolls(_) => Kind::Kill,
                Kill::AfterSteps(_) => Kind::KillAtStep,
                Kill::PowerLoss => Kind::PowerLoss,
                Kill::Gracefully => Kind::Shutdown,
            },
            Self::Damage { .. } => Kind::Damage,
            Self::NodeClock { .. } => Kind::NodeClock,
            Self::ServerClock { .. } => Kind::ServerClock,
            Self::NodeDrift { .. } => Kind::NodeDrift,
            Self::WinterTime => Kind::WinterTime,
            Self::FreezeClock(_) => Kind::FreezeClock,
            Self::DiskFull(_) => Kind::DiskFull,
            Self::DiskRefuses(_) => Kind::DiskRefuses,
            Self::NoDescriptors(_) => Kind::NoDescriptors,
            Self::DiskSlow(_) => Kind::DiskSlow,
            Self::StatusLag { .. } => Kind::StatusLag,
            Self::Rotate { .. } => Kind::Rotate,
            Self::StrandFollows => Kind::StrandFollows,
            Self::EndStreams => Kind::EndStreams,
            Self::BreakStreams => Kind::BreakStreams,
            Self::ApiDown(_) => Kind::ApiDown,
            Self::KubeletDown(_) => Kind::KubeletDown,
            Self::RuntimeDown(_) => Kind::RuntimeDown,
            Self::StallFollows(_) => Kind::StallFollows,
            Self::StallRequests(_) => Kind::StallRequests,
            Self::MuteWatches(_) => Kind::MuteWatches,
            Self::SlowLogs(_) => Kind::SlowLogs,
            Self::ApiBusy(_) => Kind::ApiBusy,
            Self::ExpireWatches => Kind::ExpireWatches,
            Self::RemoveLog { .. } => Kind::RemoveLog,
            Self::TruncateLog { .. } => Kind::TruncateLog,
            Self::Interleave { .. } => Kind::Interleave,
            Self::ReceiverHangs(_) => Kind::ReceiverHangs,
            Self::ReceiverDown(_) => Kind::ReceiverDown,
            Self::ReceiverKilled(_) => Kind::ReceiverKilled,
            Self::Partition(_) => Kind::Partition,
            Self::BusDown(_) => Kind::BusDown,
            Self::BusDisorder(_) => Kind::BusDisorder,
            Self::BusErrors(_) => Kind::BusErrors,
            Self::Scale { .. } => Kind::Scale,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collector => f.write_str("collector"),
            Self::Streamer(index) => write!(f, "streamer-{index}"),
            Self::Sinks(index) => write!(f, "sinks-{index}"),
        }
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("is killed"),
            Self::AfterPolls(polls) => write!(f, "is killed before its poll {polls} from now"),
            Self::AfterSteps(steps) => write!(f, "is killed at its durable step {steps} from now"),
            Self::PowerLoss => f.write_str("loses power"),
            Self::Gracefully => f.write_str("shuts down"),
        }
    }
}

impl fmt::Display for StateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoints => "a checkpoint file",
            Self::Spool => "a spool file",
            Self::Segment => "a segment of the bus",
            Self::Offset => "an offset file of the bus",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is emptied",
            Self::Cut => "is cut",
            Self::Flip => "gets a flipped bit",
            Self::Remove => "is removed",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { target, how, down } => write!(f, "{target} {how} and starts {down:?} later"),
            Self::Damage { file, damage, down } => {
                write!(f, "{file} {damage} while its process is down for {down:?}")
            }
            Self::NodeClock { millis } => write!(f, "the clock of the node steps by {millis} ms"),
            Self::ServerClock { millis } => write!(f, "the clock of the services steps by {millis} ms"),
            Self::NodeDrift { millionths } => write!(f, "the clock of the node drifts by {millionths} us a second"),
            Self::WinterTime => write!(f, "winter time begins on the node"),
            Self::FreezeClock(time) => write!(f, "the clock of the node stands still for {time:?}"),
            Self::DiskFull(time) => write!(f, "the disk is full for {time:?}"),
            Self::DiskRefuses(time) => write!(f, "a share of writes and syncs fails for {time:?}"),
            Self::NoDescriptors(time) => write!(f, "no file can be opened for {time:?}"),
            Self::DiskSlow(time) => write!(f, "the disk is slow for {time:?}"),
            Self::StatusLag { by, time } => write!(f, "pod status lags by {by:?} for {time:?}"),
            Self::Rotate { times } => write!(f, "all logs are rotated {times} times"),
            Self::StrandFollows => write!(f, "open follow requests stay at rotated files"),
            Self::EndStreams => write!(f, "follow and watch requests end without an error"),
            Self::BreakStreams => write!(f, "follow and watch requests break"),
            Self::ApiDown(time) => write!(f, "the API server is unavailable for {time:?}"),
            Self::KubeletDown(time) => write!(f, "the kubelet is unavailable for {time:?}"),
            Self::RuntimeDown(time) => write!(f, "the container runtime is unavailable for {time:?}"),
            Self::StallFollows(time) => write!(f, "follow requests send nothing for {time:?}"),
            Self::StallRequests(time) => write!(f, "requests get no answer for {time:?}"),
            Self::MuteWatches(time) => write!(f, "watch requests send nothing for {time:?}"),
            Self::SlowLogs(time) => write!(f, "log requests are slow for {time:?}"),
            Self::ApiBusy(time) => write!(f, "requests get 429 for {time:?}"),
            Self::ExpireWatches => write!(f, "watch requests expire (410 Gone)"),
            Self::RemoveLog { container } => write!(f, "the log file of web-{container} is removed by hand"),
            Self::TruncateLog { container } => write!(f, "the log file of web-{container} is truncated by hand"),
            Self::Interleave { container } => write!(f, "web-{container} prints lines with timestamps out of order"),
            Self::ReceiverHangs(time) => write!(f, "the receiver reads nothing for {time:?}"),
            Self::ReceiverDown(time) => write!(f, "the receiver refuses connections for {time:?}"),
            Self::ReceiverKilled(time) => write!(f, "the receiver is killed and starts {time:?} later"),
            Self::Partition(time) => write!(f, "the receiver is unreachable for {time:?}"),
            Self::BusDown(time) => write!(f, "the bus is unavailable for {time:?}"),
            Self::BusDisorder(time) => write!(f, "the bus delivers late, out of order and twice for {time:?}"),
            Self::BusErrors(time) => write!(f, "requests to the bus fail for {time:?}"),
            Self::Scale { replicas } => write!(f, "sinks run with {replicas} replicas"),
        }
    }
}
