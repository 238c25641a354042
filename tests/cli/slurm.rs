//! Heavy runs on a real Slurm of two nodes on this machine, where its programs are installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::jobs::{CHANGE, GRID, Server, by_hand, scores};

/// A controller and two nodes of one core each; ended when it is dropped.
struct Cluster {
    folder: tempfile::TempDir,
}

const CONTROLLER: u16 = 26_817;

impl Cluster {
    /// None where Slurm is not installed.
    fn start() -> Option<Self> {
        let plugins = ["/usr/lib/x86_64-linux-gnu/slurm-wlm", "/usr/lib/aarch64-linux-gnu/slurm-wlm", "/usr/lib/slurm"];
        let plugins = plugins.into_iter().find(|folder| Path::new(folder).is_dir())?;
        for program in ["slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo"] {
            Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        }
        let cluster = Self { folder: tempfile::tempdir().expect("a folder") };
        let dir = cluster.folder.path();
        for name in ["state", "spool/n1", "spool/n2", "run", "log"] {
            fs::create_dir_all(dir.join(name)).expect("a folder");
        }
        let word = |program: &str, argument: &str| {
            let output = Command::new(program).arg(argument).output().expect("runs");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let (host, user, dir) = (word("hostname", "-s"), word("id", "-un"), dir.display());
        let node = |n: u16| {
            format!(
                "NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={} CPUs=1 State=UNKNOWN\n",
                CONTROLLER + n
            )
        };
        let configuration = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nAuthType=auth/none\nCredType=cred/none\n\
             SlurmUser={user}\nSlurmdUser={user}\nPluginDir={plugins}\nStateSaveLocation={dir}/state\n\
             SlurmdSpoolDir={dir}/spool/%n\nSlurmctldPidFile={dir}/run/ctld.pid\nSlurmdPidFile={dir}/run/slurmd-%n.pid\n\
             SlurmctldLogFile={dir}/log/ctld.log\nSlurmdLogFile={dir}/log/slurmd-%n.log\nSlurmctldPort={CONTROLLER}\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSchedulerParameters=sched_interval=2,bf_interval=5\n\
             SlurmctldTimeout=10\nSlurmdTimeout=10\nMinJobAge=300\nJobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\nReturnToService=2\n{}{}\
             PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP\n",
            node(1),
            node(2)
        );
        fs::write(cluster.configuration(), configuration).expect("writes");
        cluster.run("slurmctld", &[]);
        cluster.run("slurmd", &["-N", "n1"]);
        cluster.run("slurmd", &["-N", "n2"]);
        let asked = Instant::now();
        while cluster.run("sinfo", &["-h", "-o", "%T"]).trim() != "idle" {
            assert!(asked.elapsed() < Duration::from_secs(60), "{}", cluster.run("sinfo", &[]));
            std::thread::sleep(Duration::from_millis(300));
        }
        Some(cluster)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("slurm.conf")
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).env("SLURM_CONF", self.configuration()).output().expect("runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends a daemon by the number it wrote down.
    fn kill(&self, name: &str, signal: &str) {
        if let Ok(number) = fs::read_to_string(self.folder.path().join("run").join(name)) {
            let _ = Command::new("kill").args([signal, number.trim()]).status();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for name in ["slurmd-n1.pid", "slurmd-n2.pid", "ctld.pid"] {
            self.kill(name, "-KILL");
        }
        kill_all(&self.folder.path().display().to_string());
    }
}

/// Kills every process that names this.
fn kill_all(what: &str) {
    let _ = Command::new("pkill").args(["-KILL", "-f", "--", what]).status();
}

#[test]
fn a_job_on_a_cluster_whose_node_dies_ends_in_the_same_table() {
    let Some(cluster) = Cluster::start() else {
        eprintln!(
            "SKIPPED, for Slurm is not installed (slurmctld slurmd slurm-client slurm-wlm-basic-plugins): jobs on it"
        );
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let jobs = folder.path().join("jobs");
    let with = |folder: &Path| Server::with(folder, &["--slurm"], &[("SLURM_CONF", cluster.configuration().into())]);
    let server = with(&jobs);
    let id = server.submit(&[GRID, "--change", CHANGE, "--model", "demo-nano", "--parts", "4"]);
    let rows = |server: &Server| server.json(&["list"])[0]["rows"].as_u64().expect("a number");
    let asked = Instant::now();
    while rows(&server) < 30 {
        assert!(
            asked.elapsed() < Duration::from_secs(120),
            "{}\n{}",
            server.json(&["list"]),
            cluster.run("squeue", &[])
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    // A node dies with everything on it, and comes back; the server dies, too, and the controller for a moment.
    cluster.kill("slurmd-n1.pid", "-KILL");
    kill_all(&format!("slurmstepd.*n1|--part auto/4.*{}", jobs.display()));
    cluster.kill("ctld.pid", "-KILL");
    let folder_of_jobs = server.kill();
    std::thread::sleep(Duration::from_secs(1));
    cluster.run("slurmctld", &[]);
    cluster.run("slurmd", &["-N", "n1"]);
    let server = with(&folder_of_jobs);
    let job = server.ended(&id);
    assert_eq!(job["state"], "done", "{job}\n{}", cluster.run("squeue", &[]));
    let place = jobs.join(&id);
    assert_eq!(scores(&place.join(GRID)), by_hand(&place, &folder.path().join("hand")));

    // A job that is stopped leaves the queue, and what it measured stays.
    let id = server.submit(&[GRID, "--seeds", "0,1,2,3", "--parts", "2"]);
    let asked = Instant::now();
    while rows(&server) < 5 {
        assert!(asked.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(server.jobs(&["cancel", &id]).status.success());
    assert_eq!(server.ended(&id)["state"], "cancelled");
    assert_eq!(cluster.run("squeue", &["--noheader"]).trim(), "");
}
