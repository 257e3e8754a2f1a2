import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Outcome, RejectReason } from "#gen/pinion/v1/device_pb.js";
import { Notification, OutputStream } from "#gen/pinion/v1/run_pb.js";
import { hasEnded } from "../../../clients/ts/src/process-table.ts";
import { runChild } from "../../../clients/ts/src/runner/child.ts";
import type { Peer } from "../../support/peer.ts";
import { makeStateDir, startDaemon, startPeer, until } from "./harness.ts";

const executor = (command: string[], more = "") => `
[device]
default_executor = "test"
[executors.test]
command = ${JSON.stringify(command)}
kill_grace = "200ms"
${more}
`;
const shell = (script: string, more = "") => executor(["sh", "-c", script], more);

async function runOnce(peer: Peer, config: string, options: Parameters<typeof startDaemon>[2] = {}) {
  const daemon = startDaemon(peer.url, config, options);
  const session = await peer.session();
  const assignment = session.assign({ prompt: "count to three" });
  const completion = await session.next("complete");
  return { daemon, session, assignment, completion };
}

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
};

test("an agent gets the prompt on its stdin, which ends, and its stdout is the result", async () => {
  const peer = await startPeer();
  const { completion, daemon } = await runOnce(peer, executor(["cat"]));
  expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, output: "count to three", exitCode: 0 });
  expect(await daemon.events.next("acknowledged")).toMatchObject({ verdict: "stored" });
  expect(peer.violations).toEqual([]);
});

test("an agent that does not read its stdin harms nobody", async () => {
  const peer = await startPeer();
  const daemon = startDaemon(peer.url, shell("exec <&-; echo fine"));
  const session = await peer.session();
  session.assign({ prompt: "x".repeat(256 * 1024) });
  expect(await session.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED, output: "fine\n" });
  await daemon.stop();
});

test("with stdin = assignment the agent reads the whole assignment as JSON, but not the attempt's token", async () => {
  const peer = await startPeer();
  const { completion, assignment } = await runOnce(peer, executor(["cat"], 'stdin = "assignment"'));
  const told = JSON.parse(completion.output);
  expect(told.watcher.prompt).toBe("count to three");
  expect(told.agent.settings.identity).toBe("You are terse.");
  expect(completion.output).not.toContain(assignment.attemptToken);
});

test("with stdin = none the agent reads nothing", async () => {
  const peer = await startPeer();
  const { completion } = await runOnce(peer, executor(["wc", "-c"], 'stdin = "none"'));
  expect(completion.output.trim()).toBe("0");
});

test("an agent inherits what is allowed and nothing else, and knows what its run is about", async () => {
  const peer = await startPeer();
  const { completion, assignment } = await runOnce(
    peer,
    executor(["env"], 'env = ["PATH", "LANG"]\nset_env = { FOO = "bar" }'),
    { env: { PATH: process.env.PATH, LANG: "C", ANTHROPIC_API_KEY: "sk-secret", HOME: "/home/me" } },
  );
  const seen = Object.fromEntries(
    completion.output
      .trim()
      .split("\n")
      .map((line) => line.split(/=(.*)/s).slice(0, 2)),
  );
  expect(seen).toMatchObject({
    LANG: "C",
    FOO: "bar",
    PINION_RUN_ID: assignment.workId,
    PINION_ATTEMPT_MARK: expect.stringMatching(/^[0-9a-f-]{36}$/),
    PINION_ATTEMPT: "1",
    PINION_WATCHER: "daily",
    PINION_CONVERSATION_ID: `pinion-default_watcher_daily_run_${assignment.workId}`,
    PINION_WINDOW_START: "2026-01-01T00:00:00.000Z",
    PINION_WINDOW_END: "2026-01-02T00:00:00.000Z",
    PINION_AGENT_IDENTITY: "You are terse.",
  });
  expect(completion.output).not.toContain(assignment.attemptToken);
  expect(Object.keys(seen)).not.toContain("ANTHROPIC_API_KEY");
  expect(Object.keys(seen)).not.toContain("HOME");
});

test("by default an API key is not inherited either", async () => {
  const peer = await startPeer();
  const { completion } = await runOnce(peer, executor(["env"]), {
    env: { PATH: process.env.PATH, ANTHROPIC_API_KEY: "sk-secret", OPENAI_API_KEY: "sk" },
  });
  expect(completion.output).toContain("PATH=");
  expect(completion.output).not.toContain("API_KEY");
});

test("an agent that fails says why, with the end of its stderr", async () => {
  const peer = await startPeer();
  const { completion } = await runOnce(peer, shell("echo partly; echo 'no credits left' >&2; exit 3"));
  expect(completion).toMatchObject({ outcome: Outcome.FAILED, output: "partly\n", exitCode: 3 });
  expect(completion.reason).toBe("sh exited with code 3: no credits left");
});

test("an agent that is killed by a signal names the signal", async () => {
  const peer = await startPeer();
  const { completion } = await runOnce(peer, shell("kill -9 $$"));
  expect(completion).toMatchObject({
    outcome: Outcome.FAILED,
    signal: "SIGKILL",
    reason: "sh was ended by SIGKILL",
  });
});

test("a command that is not installed fails with what to do", async () => {
  const peer = await startPeer();
  const { completion } = await runOnce(peer, executor(["no-such-agent", "-p"]));
  expect(completion.outcome).toBe(Outcome.FAILED);
  expect(completion.reason).toContain("command not found: no-such-agent; install it");
  expect(completion.reason).toContain("[executors.test]");
});

test("a command that may not be executed, and a directory that is not there, are told apart", async () => {
  const peer = await startPeer();
  const directory = makeStateDir();
  const file = join(directory, "agent");
  writeFileSync(file, "#!/bin/sh\n");
  chmodSync(file, 0o600);
  const first = await runOnce(peer, executor([file]));
  expect(first.completion.reason).toContain("may not be executed");
  await first.daemon.stop();
  const second = await runOnce(peer, executor(["cat"], `cwd = "${directory}/nowhere"`));
  expect(second.completion.reason).toContain("does not exist; create it");
});

test("the working directory is the configured one", async () => {
  const peer = await startPeer();
  const directory = makeStateDir();
  const { completion } = await runOnce(peer, executor(["pwd"], `cwd = "${directory}"`));
  expect(completion.output.trim().endsWith(directory)).toBe(true);
});

test("the shorter of the two timeouts ends the agent, first gently", async () => {
  const peer = await startPeer();
  const config = shell(
    "trap 'echo cleaned up; exit 0' TERM; echo started; while :; do sleep 0.05; done",
    'timeout = "150ms"',
  );
  const { completion } = await runOnce(peer, config);
  expect(completion.outcome).toBe(Outcome.TIMEOUT);
  expect(completion.output).toBe("started\ncleaned up\n");
  expect(completion.reason).toContain("after its timeout of 150ms");
});

test("the assignment's timeout holds if it is shorter, and an agent that ignores SIGTERM is killed", async () => {
  const peer = await startPeer();
  const daemon = startDaemon(
    peer.url,
    shell("trap '' TERM; while :; do sleep 0.05; done", 'timeout = "30m"'),
  );
  const session = await peer.session();
  session.assign({ timeoutMs: 100 });
  expect(await session.next("complete")).toMatchObject({ outcome: Outcome.TIMEOUT, signal: "SIGKILL" });
  await daemon.stop();
});

test("a cancel ends the whole process group, with grandchildren that ignore SIGTERM", async () => {
  const peer = await startPeer();
  const script =
    "(trap '' TERM; echo $$; exec sleep 600) & sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.1; done' & wait";
  const daemon = startDaemon(peer.url, shell(script));
  const session = await peer.session();
  const assignment = session.assign();
  const { pid } = await daemon.events.next("started");
  await until(() => text(daemon).trim().split("\n").length === 2, "both grandchildren run");
  const grandchild = Number(text(daemon).trim().split("\n")[1]);
  session.cancel(assignment);
  await session.next("cancelled");
  expect(isAlive(-pid)).toBe(false);
  expect(isAlive(grandchild)).toBe(false);
  expect(session.all("complete")).toHaveLength(0);
});

test.runIf(process.platform === "linux")("a cancel also ends what left the process group", async () => {
  const peer = await startPeer();
  const daemon = startDaemon(peer.url, shell("setsid sh -c 'echo $$; exec sleep 600' & wait"));
  const session = await peer.session();
  const assignment = session.assign();
  await until(() => text(daemon).includes("\n"), "the daemon of the agent runs");
  const escaped = Number(text(daemon));
  expect(isAlive(escaped)).toBe(true);
  session.cancel(assignment);
  await session.next("cancelled");
  expect(isAlive(escaped)).toBe(false);
});

test("the end of an attempt leaves the next attempt of the same run alone", async () => {
  const peer = await startPeer();
  const gate = join(makeStateDir(), "gate");
  const script = `
    [ $PINION_ATTEMPT = 1 ] && trap '' TERM
    echo $PINION_ATTEMPT
    while [ ! -e ${gate} ]; do sleep 0.02; done
    echo went on`;
  const config = shell(script).replace("[device]", "[device]\nmax_concurrency = 2");
  const daemon = startDaemon(peer.url, config);
  const session = await peer.session();
  const first = session.assign();
  await until(() => text(daemon) === "1\n", "the first attempt runs");
  session.assign({ workId: first.workId, attempt: 2 });
  await until(() => text(daemon) === "1\n2\n", "the second attempt runs");
  session.cancel(first);
  await session.next("cancelled");
  writeFileSync(gate, "");
  expect(await session.next("complete")).toMatchObject({
    outcome: Outcome.COMPLETED,
    output: "2\nwent on\n",
  });
});

test("an agent that leaves a grandchild with its pipes is finished all the same, and the grandchild ended", async () => {
  const peer = await startPeer();
  const { completion } = await runOnce(peer, shell("sleep 600 & echo $!"));
  expect(completion.outcome).toBe(Outcome.COMPLETED);
  expect(isAlive(Number(completion.output))).toBe(false);
});

test("output is streamed as it comes, both streams, in pieces of the size that the server takes", async () => {
  const peer = await startPeer({ limits: { outputChunkBytesMax: 1_000n } });
  const gate = join(makeStateDir(), "gate");
  const daemon = startDaemon(
    peer.url,
    shell(
      `echo first; echo aside >&2; while [ ! -e ${gate} ]; do sleep 0.02; done; head -c 5000 /dev/zero | tr '\\0' x`,
    ),
  );
  const session = await peer.session();
  session.assign();
  const first = await session.next("output", ({ stream }) => stream === OutputStream.STDOUT);
  expect(Buffer.from(first.data).toString()).toBe("first\n");
  await session.next("output", ({ stream }) => stream === OutputStream.STDERR);
  writeFileSync(gate, "");
  const completion = await session.next("complete");
  expect(completion.output.length).toBe(5_006);
  expect(session.all("output").every(({ data }) => data.length <= 1_000)).toBe(true);
  const sequences = session.all("output").map(({ sequence }) => Number(sequence));
  expect(sequences).toEqual(sequences.map((_, index) => index + 1));
  await daemon.stop();
});

test("a flood is cut at the output limit, and heartbeats keep their time", async () => {
  const peer = await startPeer({ heartbeatMs: 50, ttlMs: 2_000 });
  const config = executor(
    ["sh", "-c", "yes 'all work and no play' | head -c 300000000"],
    'output_limit = "64KiB"',
  );
  const { completion, session, daemon } = await runOnce(peer, config);
  expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, isOutputTruncated: true });
  expect(Buffer.byteLength(completion.output)).toBeLessThanOrEqual(65_536);
  expect(Buffer.byteLength(completion.output)).toBeGreaterThan(65_400);
  expect(completion.output).toMatch(/\[\d{9} bytes omitted\]/);
  const gaps = session.heartbeatsAt.slice(1).map((at, index) => at - (session.heartbeatsAt[index] ?? at));
  expect(Math.max(...gaps)).toBeLessThan(1_000);
  expect(daemon.events.of("disconnected")).toEqual([]);
});

test("an agent kind without an executor is rejected with what to configure", async () => {
  const peer = await startPeer();
  const daemon = startDaemon(peer.url, executor(["cat"]));
  const session = await peer.session();
  session.assign({ agentKind: "codex" });
  const reject = await session.next("reject");
  expect(reject.reason).toBe(RejectReason.UNSUPPORTED);
  expect(reject.message).toBe(
    'this device has no executor for "codex" (configured: test); add [executors.codex]',
  );
  session.assign({ agentKind: "test" });
  await session.next("accept");
  await daemon.stop();
});

test("a desktop notification is shown when the watcher asks for it, and its failure changes nothing", async () => {
  const peer = await startPeer();
  const directory = makeStateDir();
  mkdirSync(join(directory, "bin"));
  const shown = join(directory, "shown");
  const tool = process.platform === "darwin" ? "osascript" : "notify-send";
  writeFileSync(
    join(directory, "bin", tool),
    `#!/bin/sh\nprintf '%s\\n' "$@" >> ${shown}.part; mv ${shown}.part ${shown}; exit 1\n`,
  );
  chmodSync(join(directory, "bin", tool), 0o755);
  const daemon = startDaemon(peer.url, shell("echo hello"), {
    env: { PATH: `${directory}/bin:${process.env.PATH}` },
  });
  const session = await peer.session();
  expect(session.hello.capabilities).toEqual(["notification"]);
  session.assign({ notification: Notification.ON_FAILURE });
  await session.next("complete");
  expect(existsSync(shown)).toBe(false);
  session.assign({ notification: Notification.ALWAYS });
  expect((await session.next("complete")).outcome).toBe(Outcome.COMPLETED);
  await until(() => existsSync(shown), "the notification");
  expect(readFileSync(shown, "utf8")).toContain("Daily: completed\nhello");
  await daemon.stop();
});

test("a stop ends running agents within the grace, and reports them", async () => {
  const peer = await startPeer();
  const daemon = startDaemon(peer.url, shell("echo begun; exec sleep 600"));
  const session = await peer.session();
  session.assign();
  const { pid } = await daemon.events.next("started");
  await until(() => text(daemon) === "begun\n", "the agent runs");
  await daemon.stop();
  await daemon.finished;
  expect(session.all("complete")[0]).toMatchObject({
    outcome: Outcome.FAILED,
    reason: "daemon stopped",
    output: "begun\n",
  });
  expect(isAlive(-pid)).toBe(false);
  expect(daemon.events.of("acknowledged")).toHaveLength(1);
});

function text(daemon: ReturnType<typeof startDaemon>): string {
  return daemon.events
    .of("output")
    .map(({ data }) => Buffer.from(data).toString())
    .join("");
}

test("exit code 75 asks for another try later, with a word on when or without; another failure only with one", async () => {
  const peer = await startPeer();
  const daemon = startDaemon(
    peer.url,
    shell('eval "$(cat)"').replace("[device]", "[device]\nmax_concurrency = 1"),
  );
  const session = await peer.session();
  const end = async (prompt: string) => {
    session.assign({ prompt });
    return session.next("complete");
  };
  expect(await end("echo busy >&2; exit 75")).toMatchObject({
    outcome: Outcome.FAILED,
    exitCode: 75,
    retryAfter: { seconds: 300n },
    reason: expect.stringMatching(/^it asks to be tried again in 5m: sh exited with code 75: busy/),
  });
  expect(await end('echo 90 > "$PINION_RETRY_AFTER_FILE"; exit 75')).toMatchObject({
    retryAfter: { seconds: 90n },
  });
  expect(await end('echo 2h > "$PINION_RETRY_AFTER_FILE"; exit 1')).toMatchObject({
    retryAfter: { seconds: 7200n },
  });
  expect((await end("exit 1")).retryAfter).toBeUndefined();
  const well = await end('echo 90 > "$PINION_RETRY_AFTER_FILE"; echo done');
  expect(well).toMatchObject({ outcome: Outcome.COMPLETED, output: "done\n" });
  expect(well.retryAfter).toBeUndefined();
  const fifo = await end('mkfifo "$PINION_RETRY_AFTER_FILE"; exit 75');
  expect(fifo).toMatchObject({ retryAfter: { seconds: 300n }, notes: [expect.stringContaining("a FIFO")] });
  const nonsense = await end('echo soon > "$PINION_RETRY_AFTER_FILE"; exit 75');
  expect(nonsense.notes.join()).toContain('holds "soon"');
  await daemon.stop();
});

test("a program that says nothing for its idle_timeout is ended; one that goes on talking is not", async () => {
  const peer = await startPeer();
  startDaemon(peer.url, shell('eval "$(cat)"', 'idle_timeout = "600ms"'));
  const session = await peer.session();
  session.assign({ prompt: "echo begun; sleep 600" });
  expect(await session.next("complete")).toMatchObject({
    outcome: Outcome.TIMEOUT,
    output: "begun\n",
    reason: expect.stringMatching(/because it said nothing for 600ms \(idle_timeout\)/),
  });
  session.assign({ prompt: "for i in 1 2 3 4 5 6 7 8; do sleep 0.15; echo $i >&2; done; echo done" });
  expect(await session.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED, output: "done\n" });
});

test("where output is expected, a program that ends well without any has failed", async () => {
  const peer = await startPeer();
  startDaemon(peer.url, shell('eval "$(cat)"', 'expect = "output"'));
  const session = await peer.session();
  session.assign({ prompt: "echo ' '; echo only complaints >&2" });
  expect(await session.next("complete")).toMatchObject({
    outcome: Outcome.FAILED,
    exitCode: 0,
    reason: expect.stringMatching(/printed nothing, and output is expected \(expect\): only complaints/),
  });
  session.assign({ prompt: "echo something" });
  expect(await session.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED });
});

test("proxies and authorities reach a program by default, and env_add adds to what it inherits", async () => {
  const network = {
    HTTPS_PROXY: "http://proxy:1",
    no_proxy: "inside",
    NODE_EXTRA_CA_CERTS: "/ca.pem",
    SSL_CERT_FILE: "/c.pem",
  };
  const env = { PATH: process.env.PATH, ...network, MY_KEY: "mine", ANTHROPIC_API_KEY: "not asked for" };
  const { completion } = await runOnce(await startPeer(), shell("env", 'env_add = ["MY_KEY"]'), { env });
  for (const [name, value] of Object.entries({ ...network, MY_KEY: "mine" })) {
    expect(completion.output).toContain(`${name}=${value}\n`);
  }
  expect(completion.output).not.toContain("ANTHROPIC_API_KEY");
  const only = await runOnce(await startPeer(), shell("env", 'env = ["PATH"]\nenv_add = ["MY_KEY"]'), {
    env,
  });
  expect(only.completion.output).toContain("MY_KEY=mine");
  expect(only.completion.output).not.toContain("HTTPS_PROXY");
});

test("the last of a completed program's standard error goes with its result", async () => {
  const { completion } = await runOnce(
    await startPeer(),
    shell("head -c 20000 /dev/zero | tr '\\0' x >&2; echo ' the end' >&2; echo out"),
  );
  expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, output: "out\n" });
  expect(completion.stderrTail).toMatch(/^x{8000,8192} the end\n$/);
  expect(Buffer.byteLength(completion.stderrTail)).toBeLessThanOrEqual(8192);
});

test.skipIf(process.platform !== "linux")(
  "a program that ended by itself just before its abort keeps its result",
  async () => {
    const abort = new AbortController();
    const end = await runChild({
      command: ["sh", "-c", "echo the answer"],
      ...{ cwd: undefined, env: { PATH: process.env.PATH ?? "" }, stdin: undefined, timeoutMs: undefined },
      ...{ killGraceMs: 1_000, outputLimitBytes: 1_000, signal: abort.signal, onOutput: () => {} },
      // Before Node hears of the end.
      onStart: (pid) =>
        queueMicrotask(() => {
          while (!hasEnded(pid));
          abort.abort();
        }),
    });
    expect(end).toMatchObject({ kind: "exited", exitCode: 0, stdout: "the answer\n" });
  },
);
