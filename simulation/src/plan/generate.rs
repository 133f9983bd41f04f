//! Generates plans.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::known::KnownFault;

use super::{
    APPS, Action, ContainerPlan, Engine, LARGE_LOG, Plan, SharedRegistry, Source, Step, TailFormat,
    fault::{Damage, Fault, Kill, Kind, StateFile, Target},
};

/// Choices that are not left to the seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How long things happen; by default a minute or two.
    pub duration: Option<Duration>,
    /// Kinds of faults to leave out.
    pub without: Vec<Kind>,
    /// If not empty: the only kinds of faults.
    pub only: Vec<Kind>,
    /// The source.
    pub source: Option<Source>,
    /// The bus.
    pub engine: Option<Engine>,
    /// The number of containers.
    pub containers: Option<usize>,
    /// Known faults that plans must not show.
    pub avoid: Vec<&'static KnownFault>,
}

/// Generates the plan of a seed.
pub fn generate(seed: u64, options: &Options) -> Plan {
    let mut generator = Generator {
        random: StdRng::seed_from_u64(seed),
        options,
    };
    generator.plan(seed)
}

/// What surrounds the services.
struct Setting {
    engine: Engine,
    registry: SharedRegistry,
    has_proxy: bool,
}

impl Setting {
    /// Draws it from a generator of its own, so that the steps of a seed do not depend on it.
    fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x7365_7474);
        let engine = if random.random_bool(0.25) {
            Engine::PubSub
        } else {
            Engine::Embedded
        };
        let registry = if random.random_bool(0.5) {
            SharedRegistry::File
        } else {
            SharedRegistry::Kubernetes
        };
        Self {
            engine,
            registry,
            has_proxy: random.random_bool(0.5),
        }
    }
}

struct Generator<'a> {
    random: StdRng,
    options: &'a Options,
}

impl Generator<'_> {
    fn plan(&mut self, seed: u64) -> Plan {
        let is_files = self.random.random_bool(0.5);
        let source = if is_files { Source::Files } else { Source::Api };
        let source = self.options.source.unwrap_or(source);
        let setting = Setting::draw(seed);
        let engine = self.options.engine.unwrap_or(setting.engine);
        let duration = Duration::from_secs(self.random.random_range(40..120));
        let duration = self.options.duration.unwrap_or(duration);
        let apps = APPS.map(str::to_owned).to_vec();
        let count = self.random.random_range(2..6);
        let containers: Vec<_> = (0..self.options.containers.unwrap_or(count))
            .map(|index| self.container(index))
            .collect();
        let sizes = [4 << 10, 32 << 10, 256 << 10, LARGE_LOG];
        let rotate_bytes = *sizes.choose(&mut self.random).unwrap_or(&LARGE_LOG);
        let has_small_logs = self.is_wanted(Kind::SmallLogs, source, engine);
        let rotate_bytes = if has_small_logs { rotate_bytes } else { LARGE_LOG };
        let mut steps = self.clients(containers.len(), duration);
        let is_wanted = |action: &Action| action.kind().is_none_or(|kind| self.is_wanted(kind, source, engine));
        steps.retain(|(_, action)| is_wanted(action));
        // Few kinds in a run, so that their effects can be distinguished.
        let kinds = self.kinds(source, engine);
        let rate = self.random.random_range(6..20);
        let faults = u32::try_from(duration.as_secs() / rate).unwrap_or(u32::MAX);
        for _ in 0..faults {
            if let Some(kind) = kinds.choose(&mut self.random)
                && let Some(fault) = self.fault(*kind, containers.len())
            {
                steps.push((self.moment(duration), Action::Fault(fault)));
            }
        }
        steps.sort_by_key(|(at, _)| *at);
        let steps = steps.into_iter().enumerate();
        Plan {
            seed,
            duration,
            source,
            engine,
            registry: setting.registry,
            has_proxy: setting.has_proxy,
            apps,
            containers,
            rotate_bytes,
            rotate_files: self.random.random_range(2..6),
            steps: steps
                .map(|(number, (at, action))| Step { number, at, action })
                .collect(),
        }
    }

    fn container(&mut self, index: usize) -> ContainerPlan {
        let millis = *[50, 200, 1000, 5000, 20_000].choose(&mut self.random).unwrap_or(&1000);
        ContainerPlan {
            app: usize::from(index > 1 && self.random.random_bool(0.3)),
            pod: format!("web-{index}"),
            name: "web".to_owned(),
            every: Duration::from_millis(millis),
            lines: self.random.random_range(1..4),
            bytes: self.random.random_range(40..300),
            stderr_every: if self.random.random_bool(0.4) { 3 } else { 0 },
        }
    }

    fn moment(&mut self, duration: Duration) -> Duration {
        duration.mul_f64(self.random.random_range(0.02..1.0))
    }

    /// What clients and containers do.
    fn clients(&mut self, containers: usize, duration: Duration) -> Vec<(Duration, Action)> {
        let mut steps = vec![(Duration::ZERO, self.open_tail(0, 0))];
        for _ in 0..self.random.random_range(1..4) {
            let (app, num_lines) = (self.random.random_range(0..2), self.random.random_range(0..200));
            let at = self.moment(duration);
            steps.push((at, self.open_tail(app, num_lines)));
        }
        let count = duration.as_secs() / self.random.random_range(5..15);
        for _ in 0..count {
            let container = self.random.random_range(0..containers);
            let tail = self.random.random_range(0..4);
            let action = match self.random.random_range(0..10) {
                0..4 => Action::Burst {
                    container,
                    lines: self.random.random_range(10..1500),
                    bytes: self.random.random_range(30..400),
                },
                4..6 => Action::Exit {
                    container,
                    code: self.random.random_range(0..2),
                },
                6 => Action::Replace { container },
                7 => Action::BreakTail { tail },
                8 => Action::StallTail {
                    tail,
                    time: self.seconds(1, 40),
                },
                _ => Action::ReadHistory {
                    app: self.random.random_range(0..2),
                },
            };
            steps.push((self.moment(duration), action));
        }
        steps
    }

    fn open_tail(&mut self, app: usize, num_lines: u64) -> Action {
        let format = if self.random.random_bool(0.6) {
            TailFormat::Events
        } else {
            TailFormat::Ndjson
        };
        Action::OpenTail { app, num_lines, format }
    }

    fn kinds(&mut self, source: Source, engine: Engine) -> Vec<Kind> {
        let applies = |kind: &Kind| match kind {
            Kind::StrandFollows | Kind::StallFollows | Kind::SlowLogs | Kind::RuntimeDown | Kind::KubeletDown => {
                source == Source::Api
            }
            Kind::RemoveLog | Kind::TruncateLog | Kind::WinterTime => source == Source::Files,
            // With log files, the services on the embedded bus run on the node and share its clock.
            Kind::ServerClock => source == Source::Api || engine == Engine::PubSub,
            Kind::BusDown | Kind::BusDisorder | Kind::BusErrors | Kind::Scale => engine == Engine::PubSub,
            _ => true,
        };
        let is_chosen = |kind: &Kind| {
            let is_asked_for = self.options.only.is_empty() || self.options.only.contains(kind);
            kind.is_fault() && is_asked_for && self.is_wanted(*kind, source, engine)
        };
        let mut kinds: Vec<_> = Kind::ALL.iter().copied().filter(applies).filter(is_chosen).collect();
        let wanted = self.random.random_range(1..6);
        while kinds.len() > wanted {
            let index = self.random.random_range(0..kinds.len());
            kinds.swap_remove(index);
        }
        kinds.sort_unstable();
        kinds
    }

    /// Returns whether a kind is not left out.
    fn is_wanted(&self, kind: Kind, source: Source, engine: Engine) -> bool {
        let avoided = self
            .options
            .avoid
            .iter()
            .filter(|fault| fault.applies_to(source, engine));
        !self.options.without.contains(&kind) && !avoided.flat_map(|fault| fault.kinds).any(|avoided| *avoided == kind)
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from * 1000..to * 1000))
    }

    /// A time that is short or long.
    fn time(&mut self) -> Duration {
        match self.random.random_range(0..3) {
            0 => Duration::from_millis(self.random.random_range(50..1000)),
            1 => self.seconds(1, 8),
            _ => self.seconds(8, 40),
        }
    }

    /// A step of a clock, small or large, back or forward.
    fn clock_step(&mut self) -> i64 {
        let size = match self.random.random_range(0..3) {
            0 => self.random.random_range(100..5000),
            1 => self.random.random_range(5000..120_000),
            _ => self.random.random_range(600_000..4 * 3600 * 1000),
        };
        if self.random.random_bool(0.5) { size } else { -size }
    }

    /// Draws a fault of a kind; `None` if it is ordinary life.
    fn fault(&mut self, kind: Kind, containers: usize) -> Option<Fault> {
        let container = self.random.random_range(0..containers);
        let fault = match kind {
            Kind::Burst | Kind::Exit | Kind::Replace | Kind::BreakTail | Kind::StallTail | Kind::SmallLogs => {
                return None;
            }
            Kind::Kill | Kind::KillAtStep | Kind::PowerLoss | Kind::Shutdown => self.kill(kind),
            Kind::Damage => self.damage(),
            Kind::NodeClock => Fault::NodeClock {
                millis: self.clock_step(),
            },
            Kind::ServerClock => Fault::ServerClock {
                millis: self.clock_step(),
            },
            Kind::NodeDrift => Fault::NodeDrift {
                millionths: self.random.random_range(-20_000..20_000),
            },
            Kind::WinterTime => Fault::WinterTime,
            Kind::FreezeClock => Fault::FreezeClock(self.time()),
            Kind::DiskFull => Fault::DiskFull(self.time()),
            Kind::DiskRefuses => Fault::DiskRefuses(self.time()),
            Kind::NoDescriptors => Fault::NoDescriptors(self.time()),
            Kind::DiskSlow => Fault::DiskSlow(self.time()),
            Kind::StatusLag => Fault::StatusLag {
                by: self.seconds(0, 5) + Duration::from_millis(100),
                time: self.seconds(5, 40),
            },
            Kind::Rotate => Fault::Rotate {
                times: self.random.random_range(1..8),
            },
            Kind::StrandFollows => Fault::StrandFollows,
            Kind::EndStreams => Fault::EndStreams,
            Kind::BreakStreams => Fault::BreakStreams,
            Kind::ApiDown => Fault::ApiDown(self.time()),
            Kind::KubeletDown => Fault::KubeletDown(self.time()),
            Kind::RuntimeDown => Fault::RuntimeDown(self.time()),
            Kind::StallFollows => Fault::StallFollows(self.time()),
            Kind::StallRequests => Fault::StallRequests(self.time()),
            Kind::MuteWatches => Fault::MuteWatches(self.time()),
            Kind::SlowLogs => Fault::SlowLogs(self.time()),
            Kind::ApiBusy => Fault::ApiBusy(self.time()),
            Kind::ExpireWatches => Fault::ExpireWatches,
            Kind::RemoveLog => Fault::RemoveLog { container },
            Kind::TruncateLog => Fault::TruncateLog { container },
            Kind::Interleave => Fault::Interleave { container },
            Kind::ReceiverHangs => Fault::ReceiverHangs(self.time()),
            Kind::ReceiverDown => Fault::ReceiverDown(self.time()),
            Kind::ReceiverKilled => Fault::ReceiverKilled(self.time()),
            Kind::Partition => Fault::Partition(self.time()),
            Kind::BusDown => Fault::BusDown(self.time()),
            Kind::BusDisorder => Fault::BusDisorder(self.seconds(5, 40)),
            Kind::BusErrors => Fault::BusErrors(self.time()),
            Kind::Scale => Fault::Scale {
                replicas: self.random.random_range(1..3),
            },
        };
        Some(fault)
    }

    fn kill(&mut self, kind: Kind) -> Fault {
        let how = match kind {
            Kind::PowerLoss => Kill::PowerLoss,
            Kind::Shutdown => Kill::Gracefully,
            Kind::KillAtStep => Kill::AfterSteps(self.random.random_range(1..60)),
            _ if self.random.random_bool(0.5) => Kill::Now,
            _ => Kill::AfterPolls(self.random.random_range(1..2000)),
        };
        let index = self.random.random_range(0..2);
        let target = match self.random.random_range(0..3) {
            0 => Target::Streamer(index),
            1 => Target::Sinks(index),
            _ => Target::Collector,
        };
        Fault::Kill {
            target,
            how,
            down: self.time(),
        }
    }

    fn damage(&mut self) -> Fault {
        let files = [
            StateFile::Checkpoints,
            StateFile::Spool,
            StateFile::Segment,
            StateFile::Offset,
        ];
        let damages = [Damage::Empty, Damage::Cut, Damage::Flip, Damage::Remove];
        Fault::Damage {
            file: *files.choose(&mut self.random).unwrap_or(&StateFile::Checkpoints),
            damage: *damages.choose(&mut self.random).unwrap_or(&Damage::Empty),
            down: self.time(),
        }
    }
}
