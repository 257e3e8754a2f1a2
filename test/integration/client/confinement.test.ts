/** The actions of a program against its daemon that are possible, and those that are prevented. */
import { execFileSync, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { isolationProblem } from "../../../clients/ts/src/runner/confinement.ts";
import { makeStateDir, settledSession, startDaemon, startPeer, until } from "./harness.ts";

const shell = (script: string, more = "") => `
[device]
default_executor = "test"
[executors.test]
command = ${JSON.stringify(["sh", "-c", script])}
kill_grace = "500ms"
${more}
`;

const cannotIsolate = isolationProblem(process.env.PATH);
if (cannotIsolate !== undefined) console.error(`NOTICE: isolation is not tested: ${cannotIsolate}`);
const isRoot = process.getuid?.() === 0;
if (!isRoot) console.error("NOTICE: run_as is not tested, for this is not root");

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
};
/** Processes whose command line contains a text. */
const running = (text: string) =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text) && isAlive(Number(pid));
      } catch {
        return false;
      }
    });

async function runOnce(script: string, more = "", options: Parameters<typeof startDaemon>[2] = {}) {
  const peer = await startPeer();
  const daemon = startDaemon(peer.url, shell(script, more), options);
  const session = await peer.session();
  session.assign({ prompt: "p", ...(more.includes("timeout") ? {} : {}) });
  return { peer, daemon, session, completion: await session.next("complete") };
}

test("FIFOs, links and directories where a program may leave a file harm nobody", async () => {
  const peer = await startPeer();
  const script = `
    read -r kind
    rm -rf "$PINION_SNAPSHOT_OUT"
    case "$kind" in
      fifo) mkfifo "$PINION_SNAPSHOT_OUT" ;;
      link) ln -s /etc/passwd "$PINION_SNAPSHOT_OUT" ;;
      directory) mkdir "$PINION_SNAPSHOT_OUT" ;;
      device) ln -s /dev/zero "$PINION_SNAPSHOT_OUT" ;;
      large) head -c 2000000 /dev/zero > "$PINION_SNAPSHOT_OUT" ;;
    esac`;
  const daemon = startDaemon(
    peer.url,
    `${shell(script)}`.replace("[device]", "[device]\nmax_concurrency = 8"),
  );
  const session = await peer.session();
  // More FIFOs than libuv has threads for files.
  const kinds = ["fifo", "fifo", "fifo", "fifo", "fifo", "link", "directory", "device", "large"];
  const problems: Record<string, RegExp> = {
    fifo: /a FIFO, not a file/,
    link: /a symbolic link/,
    directory: /a directory/,
    device: /a symbolic link/,
    large: /larger than 1 MiB/,
  };
  for (const kind of kinds) {
    session.assign({
      turn: { conversationId: `c-${kind}`, messageId: "m", input: `${kind}\n`, usesSnapshot: true },
    });
    const completion = await session.next("complete");
    expect(completion, kind).toMatchObject({ outcome: Outcome.FAILED });
    expect(completion.reason).toMatch(problems[kind]!);
    expect(completion.reason).toContain("PINION_SNAPSHOT_OUT");
  }
  await daemon.stop();
});

test("FIFOs in the daemon's own directories do not keep it from starting, and are set aside", async () => {
  const stateDir = makeStateDir();
  const name = "0190b6a0-0000-7000-8000-00000000000a.0190b6a0-0000-7000-8000-00000000000b.completion";
  execFileSync("mkdir", ["-p", join(stateDir, "outbox"), join(stateDir, "attempts")]);
  for (const path of [join("outbox", name), "attempts/x.json", "daemon.lock"]) {
    execFileSync("mkfifo", [join(stateDir, path)]);
  }
  const { daemon, completion } = await runOnce("echo fine", "", { stateDir });
  expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, output: "fine\n" });
  expect(await daemon.events.next("set_aside")).toMatchObject({ problem: "it is a FIFO, not a file" });
  expect(existsSync(join(stateDir, "outbox", "bad", name))).toBe(true);
});

/** What a program can leave at a path, beside a file. */
const odd: Record<string, (path: string) => void> = {
  "a FIFO": (path) => execFileSync("mkfifo", [path]),
  "a directory": (path) => execFileSync("mkdir", ["-p", join(path, "within")]),
  "a link to a device": (path) => execFileSync("ln", ["-s", "/dev/zero", path]),
  "a link to nothing": (path) => execFileSync("ln", ["-s", "/nowhere/at/all", path]),
  "a sparse file of 1 TiB": (path) => execFileSync("truncate", ["-s", "1T", path]),
  "a socket": (path) => {
    // The name of a socket is short; the process ends without removing it.
    const [name, program] = [join(tmpdir(), randomUUID().slice(0, 8)), "require('net').createServer()"];
    const end = "() => process.kill(process.pid, 'SIGKILL')";
    spawnSync(process.execPath, ["-e", `${program}.listen(process.argv[1], ${end})`, name]);
    renameSync(name, path);
  },
};

test.each(Object.keys(odd))("%s at any path of the daemon does not keep it from working", async (kind) => {
  const stateDir = makeStateDir();
  const [one, other] = ["0190b6a0-0000-7000-8000-00000000000a", "0190b6a0-0000-7000-8000-00000000000b"];
  execFileSync("mkdir", ["-p", ...["outbox/kept", "attempts"].map((path) => join(stateDir, path))]);
  for (const path of [
    ...["daemon.lock", "sessions.json", "sessions.json.tmp", "status.json", "status.json.tmp"],
    ...["attempts/x.json", "attempts/y", "outbox/z.tmp", `outbox/${one}.${other}.completion`],
    `outbox/kept/${one}.${other}.1.7420-1.kept`,
  ]) {
    odd[kind]!(join(stateDir, path));
  }
  const peer = await startPeer();
  peer.incarnation = { systemIdentifier: "7420", timeline: 2, position: "0/1" };
  startDaemon(peer.url, shell("echo fine"), { stateDir });
  const session = await peer.session();
  // More than libuv has threads for files.
  for (let count = 0; count < 6; count++) {
    const { attemptToken } = session.assign({ more: { session: { sessionId: `s-${count}` } } });
    const isIt = (sent: { attemptToken: string }) => sent.attemptToken === attemptToken;
    expect(await session.next("complete", isIt)).toMatchObject({ output: "fine\n" });
  }
});

test("the device's token does not leave by output, reason, stderr or snapshot, also in two pieces", async () => {
  const token = "pin_dev_AbCdEfGhIjKlMnOpQrStUvWxYz0123_89abcdef";
  const secret = "AbCdEfGhIjKlMnOpQrStUvWxYz0123";
  const peer = await startPeer();
  const script = `printf 'token pin_dev_AbCdEfGhIj'; sleep 0.2; echo 'KlMnOpQrStUvWxYz0123_89abcdef.'
    echo ${token} >&2; [ -z "$PINION_SNAPSHOT_OUT" ] || echo ${token} > "$PINION_SNAPSHOT_OUT"; exit \${CODE:-0}`;
  const daemon = startDaemon(peer.url, shell(script), { token });
  const session = await peer.session();
  session.assign({ turn: { conversationId: "c", messageId: "m", input: "", usesSnapshot: true } });
  const completion = await session.next("complete");
  expect(completion.output).toBe("token pin_dev_[hidden by pinion]_89abcdef.\n");
  expect(completion.notes.join()).toMatch(/printed this device's token/);
  for (const text of [
    completion.stderrTail,
    Buffer.from(completion.nextSnapshot!).toString(),
    JSON.stringify(daemon.events.all, (_key, value) => (typeof value === "bigint" ? String(value) : value)),
  ]) {
    expect(text).not.toContain(secret);
  }
  const relayed = daemon.events
    .of("output")
    .map(({ data }) => Buffer.from(data).toString())
    .join("");
  expect(relayed).not.toContain(secret);
  expect(relayed).toContain("token pin_dev_[hidden by pinion]");
});

test("a child that left the group of a run that ended well is gone with it", async () => {
  const { completion } = await runOnce(
    "setsid sh -c 'exec sleep 6173' >/dev/null 2>&1 & sleep 0.3; echo done",
  );
  expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, output: "done\n" });
  expect(running("sleep\u00006173")).toEqual([]);
});

const isolated = test.skipIf(cannotIsolate !== undefined);

isolated(
  "an isolated program sees neither the daemon nor its files, and does its work as before",
  async () => {
    const stateDir = makeStateDir();
    writeFileSync(join(stateDir, "identity.json.bak"), "secret");
    const script = `
    cat "/proc/$PPID/environ" | tr '\\0' '\\n' | grep -c PINION_TEST_SECRET
    ls '${stateDir}' | grep -v files; ls /proc | grep -c '^[0-9]'
    printf next > "$PINION_SNAPSHOT_OUT"; echo done`;
    const peer = await startPeer();
    startDaemon(peer.url, shell(script, "isolate = true"), { stateDir });
    const session = await peer.session();
    session.assign({ turn: { conversationId: "c", messageId: "m", input: "", usesSnapshot: true } });
    const completion = await session.next("complete");
    expect(completion, completion.reason).toMatchObject({ outcome: Outcome.COMPLETED });
    expect(Buffer.from(completion.nextSnapshot!).toString()).toBe("next");
    const [environ, processes, last] = completion.output.trim().split("\n");
    expect(environ).toBe("0");
    // The namespace's first, the shell, ls and grep.
    expect(Number(processes)).toBeLessThan(6);
    expect(last).toBe("done");
  },
);

isolated("nothing of an isolated program outlives it, whatever it did to get away", async () => {
  const script = "env -i setsid sh -c 'exec sleep 6174' >/dev/null 2>&1 & sleep 0.3; echo done";
  const { completion } = await runOnce(script, "isolate = true");
  expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, output: "done\n" });
  await until(() => running("sleep\u00006174").length === 0, "its child is gone");
});

isolated("an isolated program has its grace, and one that is not there is told as ever", async () => {
  const peer = await startPeer();
  const script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
  startDaemon(peer.url, shell(script, 'isolate = true\ntimeout = "700ms"'));
  const session = await peer.session();
  session.assign();
  const completion = await session.next("complete");
  expect(completion).toMatchObject({ outcome: Outcome.TIMEOUT, output: "up\nbye\n" });

  const other = await startPeer();
  startDaemon(
    other.url,
    '[executors.test]\ncommand = ["no-such-program"]\nisolate = true\n[device]\ndefault_executor = "test"',
  );
  const next = await other.session();
  next.assign();
  expect((await next.next("complete")).reason).toMatch(/command not found: no-such-program/);
});

test.skipIf(!isRoot)(
  "run_as starts the program as that user, who cannot read the state and can leave its files",
  async () => {
    const stateDir = makeStateDir();
    writeFileSync(join(stateDir, "secret"), "x", { mode: 0o600 });
    const script = `id -un; echo "$HOME $USER"; cat '${stateDir}/secret' 2>&1 | grep -o 'Permission denied'
    cat "/proc/$PPID/environ" 2>&1 | grep -ao 'Permission denied'; printf next > "$PINION_SNAPSHOT_OUT"`;
    const peer = await startPeer();
    startDaemon(peer.url, shell(script, 'run_as = "nobody"\ncwd = "/"'), { stateDir });
    const session = await peer.session();
    session.assign({ turn: { conversationId: "c", messageId: "m", input: "", usesSnapshot: true } });
    const completion = await session.next("complete");
    expect(completion.output).toMatch(/^nobody\n\S+ nobody\nPermission denied\nPermission denied\n$/);
    expect(Buffer.from(completion.nextSnapshot!).toString()).toBe("next");
  },
);

test.skipIf(!isRoot)(
  "the version of an agent is asked as its user, who may have changed the program",
  async () => {
    const directory = makeStateDir();
    const program = join(directory, "agent");
    writeFileSync(program, '#!/bin/sh\necho "agent 1.0 of $(id -un):$(id -G)"\n', { mode: 0o755 });
    execFileSync("chmod", ["755", directory]);
    const peer = await startPeer();
    const more = `[executors.agent]\ntype = "codex"\ncommand = ["${program}"]\nrun_as = "nobody"\n`;
    startDaemon(peer.url, shell("true", more), { env: { PATH: process.env.PATH } });
    const session = await settledSession(peer);
    const { version } = session.hello.executors.find(({ kind }) => kind === "agent")!;
    expect(version).toMatch(/^agent 1\.0 of nobody:\d+$/);
  },
);

test.skipIf(!isRoot || cannotIsolate !== undefined)("run_as and isolate go together", async () => {
  const { completion } = await runOnce(
    "id -un; env -i setsid sh -c 'exec sleep 6175' >/dev/null 2>&1 & sleep 0.3",
    'run_as = "nobody"\nisolate = true\ncwd = "/"',
  );
  expect(completion, completion.reason + completion.stderrTail).toMatchObject({ output: "nobody\n" });
  await until(() => running("sleep\u00006175").length === 0, "its child is gone");
});

test("a confinement that does not hold here keeps the daemon from starting, with words", async () => {
  const peer = await startPeer();
  const daemon = startDaemon(peer.url, shell("true", 'run_as = "no-such-user"'));
  await expect(daemon.finished).rejects.toThrow(/executors.test: there is no user "no-such-user"/);
  await sleep(0);
});
