//! Carries out the steps of a plan.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use kubesim::FaultKind;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    World, later,
    services::{BusFaults, DATA_DIR, Tamper, state_files},
};
use crate::{
    machine::{disk::DiskFaults, process::Host},
    plan::{Action, Damage, Fault, Kill, StateFile, Target},
    pubsub::Faults,
    trace,
};

impl World {
    /// Carries out a step; what lasts goes on in tasks.
    pub(super) fn act(&mut self, number: usize, action: Action) {
        match action {
            Action::Burst {
                container,
                lines,
                bytes,
            } => self.node.burst(container, lines, bytes),
            Action::Exit { container, code } => self.node.exit(container, code),
            Action::Replace { container } => self.node.replace(container, &self.plan),
            Action::OpenTail { app, num_lines, format } => self.clients.open_tail(app, num_lines, format),
            Action::BreakTail { tail } => self.clients.break_tail(tail),
            Action::StallTail { tail, time } => self.clients.stall_tail(tail, time),
            Action::ReadHistory { app } => drop(self.clients.read_history(app)),
            Action::Fault(fault) => self.cause(number, fault),
        }
    }

    fn cause(&mut self, number: usize, fault: Fault) {
        match fault {
            Fault::Kill { target, how, down } => self.services.kill(target, how, down, None),
            Fault::Damage { file, damage, down } => {
                let seed = self.plan.seed ^ trace::elapsed().as_millis() as u64;
                let printed = Arc::clone(&self.printed);
                let tamper: Tamper = Box::new(move |host| {
                    let is_damaged = tamper(host, file, damage, seed);
                    if is_damaged && file == StateFile::Checkpoints {
                        printed.lock().lose_checkpoints(trace::elapsed(), down);
                    }
                });
                self.services.kill(Target::Collector, Kill::Now, down, Some(tamper));
            }
            Fault::NodeClock { millis } => self.hosts.node.clock.step(millis),
            Fault::ServerClock { millis } => self.hosts.step_server_clock(number, millis),
            Fault::NodeDrift { millionths } => self.hosts.node.clock.set_drift(millionths),
            Fault::WinterTime => self.node.cause(FaultKind::SetUtcOffset {
                offset: SignedDuration::from_hours(1),
            }),
            Fault::DiskFull(time) => self.disk_fault(time, |faults| faults.full = true),
            Fault::DiskRefuses(time) => self.disk_fault(time, |faults| faults.refused = 0.3),
            Fault::NoDescriptors(time) => self.disk_fault(time, |faults| faults.no_descriptors = true),
            Fault::DiskSlow(time) => self.disk_fault(time, |faults| faults.slow = Duration::from_millis(300)),
            Fault::StatusLag { by, time } => self.node.cause(FaultKind::StatusLag {
                duration: time,
                delay: by,
            }),
            Fault::Rotate { times } => self.node.rotate(times),
            Fault::StrandFollows => self.node.cause(FaultKind::StrandFollows),
            Fault::EndStreams => self.node.cause(FaultKind::EndStreams),
            Fault::BreakStreams => self.node.cause(FaultKind::BreakStreams),
            Fault::ApiDown(time) => self.node.cause(FaultKind::ApiDown { duration: time }),
            Fault::KubeletDown(time) => self.node.cause(FaultKind::KubeletDown { duration: time }),
            Fault::RuntimeDown(time) => self.node.cause(FaultKind::RuntimeDown { duration: time }),
            Fault::StallFollows(time) => self.node.cause(FaultKind::StallFollows { duration: time }),
            Fault::StallRequests(time) => self.node.cause(FaultKind::StallRequests { duration: time }),
            Fault::MuteWatches(time) => self.node.cause(FaultKind::MuteWatches { duration: time }),
            Fault::SlowLogs(time) => self.node.cause(FaultKind::SlowLogs {
                duration: time,
                delay: Duration::from_millis(200),
            }),
            Fault::ApiBusy(time) => self.node.cause(FaultKind::ApiBusy { duration: time }),
            Fault::ExpireWatches => self.node.cause(FaultKind::ExpireWatches),
            Fault::FreezeClock(time) => self.node.freeze_clock(time),
            Fault::RemoveLog { container } => self.node.damage_log(container, true),
            Fault::TruncateLog { container } => self.node.damage_log(container, false),
            Fault::Interleave { container } => self.node.print_out_of_order(container),
            Fault::ReceiverHangs(time) => self.receiver.hang(time),
            Fault::ReceiverDown(time) => self.receiver.restart(false, time),
            Fault::ReceiverKilled(time) => self.receiver.restart(true, time),
            Fault::Partition(time) => self.cut_off(self.hosts.receiver.clone(), time),
            Fault::Scale { replicas } => self.services.scale(replicas),
            Fault::BusDown(time) => self.bus_fault(|bus| bus.pause(time)),
            Fault::BusDisorder(time) => self.bus_fault(|bus| bus.misbehave(Faults::delivery(), time)),
            Fault::BusErrors(time) => self.bus_fault(|bus| bus.misbehave(Faults::requests(), time)),
        }
    }

    /// The embedded bus has no service that could be away.
    fn bus_fault(&self, cause: impl FnOnce(&BusFaults)) {
        if let Some(bus) = self.services.bus() {
            cause(bus);
        }
    }

    fn disk_fault(&self, time: Duration, change: impl FnOnce(&mut DiskFaults)) {
        let disk = Arc::clone(&self.hosts.server.disk);
        disk.set_faults(|faults| {
            faults.dir = DATA_DIR.into();
            change(faults);
        });
        later(time, move || {
            disk.set_faults(|faults| *faults = DiskFaults::default());
            trace::world("the disk works again");
        });
    }

    fn cut_off(&self, host: Host, time: Duration) {
        host.network.set_reachable(host.address, false);
        later(time, move || {
            host.network.set_reachable(host.address, true);
            trace::world("the receiver is reachable again");
        });
    }

    /// Ends all faults that still last.
    pub(super) fn end_faults(&mut self) {
        trace::world("all faults end; everything must become quiet");
        self.hosts
            .server
            .disk
            .set_faults(|faults| *faults = DiskFaults::default());
        self.hosts.node.clock.set_drift(0);
        self.hosts
            .receiver
            .network
            .set_reachable(self.hosts.receiver.address, true);
        self.node.end_faults();
        self.services.end_faults();
        self.receiver.recover();
        self.clients.resume_all();
    }
}

/// Damages one file of a kind, chosen by the seed. Returns whether there is one.
fn tamper(host: &Host, kind: StateFile, damage: Damage, seed: u64) -> bool {
    let mut random = StdRng::seed_from_u64(seed);
    let is_of_kind = |path: &str| match kind {
        StateFile::Checkpoints => path.contains("/checkpoints/checkpoints"),
        StateFile::Spool => path.contains("/spool/"),
        StateFile::Segment => path.ends_with(".seg"),
        StateFile::Offset => path.contains("/bus/apps/") && !path.ends_with(".seg"),
    };
    let files = state_files(host);
    let files: Vec<_> = files
        .iter()
        .filter(|(path, len)| *len > 0 && is_of_kind(&path.to_string_lossy()))
        .collect();
    if files.is_empty() {
        trace::world(format!("nothing is damaged: there is no such file ({kind})"));
        return false;
    }
    let (path, len) = files[random.random_range(0..files.len())];
    let at = usize::try_from(random.random_range(0..*len)).unwrap_or(0);
    trace::world(format!(
        "{} ({len} bytes) {damage}, at byte {at} if not as a whole",
        path.display()
    ));
    host.disk.damage(path, |bytes| match damage {
        Damage::Empty => bytes.clear(),
        Damage::Cut => bytes.truncate(at),
        Damage::Flip => bytes[at] ^= 1 << (at % 8),
        Damage::Remove => {}
    });
    if damage == Damage::Remove {
        host.disk.remove(path);
    }
    true
}
