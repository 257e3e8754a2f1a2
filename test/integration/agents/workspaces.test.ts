/** Named places to work in, tried with commands: every type of executor works in them. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { WorkspaceMode } from "#gen/pinion/v1/activity_pb.js";
import { Outcome, RejectReason } from "#gen/pinion/v1/device_pb.js";
import { Workspaces } from "../../../clients/ts/src/agents/workspaces.ts";
import { silentLogger } from "../../../clients/ts/src/logger.ts";
import { parseConfig } from "../../../clients/ts/src/runner/config.ts";
import { isolationProblem, unconfined } from "../../../clients/ts/src/runner/confinement.ts";
import { makeStateDir, settledSession, startDaemon, startPeer } from "../client/harness.ts";

const git = (cwd: string, ...args: string[]) =>
  execFileSync("git", ["-c", "user.name=T", "-c", "user.email=t@example.org", ...args], {
    cwd,
    encoding: "utf8",
  });

function repository(): string {
  const path = join(makeStateDir(), "app");
  mkdirSync(path);
  git(path, "init", "--quiet", "--initial-branch=main");
  writeFileSync(join(path, "README"), "hello\n");
  git(path, "add", ".");
  git(path, "commit", "--quiet", "-m", "first");
  return path;
}

async function on(workspace: string, concurrency = 2, executor = "") {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  const daemon = startDaemon(
    peer.url,
    `[device]
max_concurrency = ${concurrency}
[executors.sh]
command = ["sh"]
kill_grace = "200ms"
${executor}
[workspaces.app]
${workspace}
`,
    { stateDir },
  );
  const session = await settledSession(peer);
  const assign = (prompt: string, more: object = {}) =>
    session.assign({ prompt, more: { workspace: "app", ...more } });
  const run = async (prompt: string, more: object = {}) => {
    const { attemptToken } = assign(prompt, more);
    return session.next("complete", (completion) => completion.attemptToken === attemptToken);
  };
  const left = () => {
    const parent = join(stateDir, "workspaces/app");
    return existsSync(parent) ? readdirSync(parent) : [];
  };
  return { peer, session, daemon, stateDir, assign, run, left };
}

const identity = `git config user.name T && git config user.email t@example.org`;

test("a worktree is removed when the run left nothing in it, and its branch with it", async () => {
  const path = repository();
  const { run, left } = await on(`path = "${path}"\nmode = "worktree"`);
  const completion = await run("pwd && cat README && git status --porcelain");
  expect(completion.outcome).toBe(Outcome.COMPLETED);
  expect(completion.keptWorkspace).toBeUndefined();
  expect(completion.output).toContain("hello");
  expect(completion.output).not.toContain(`${path}\n`);
  expect(left()).toEqual([]);
  expect(git(path, "branch", "--list").trim()).toBe("* main");
  expect(git(path, "worktree", "list").trim().split("\n")).toHaveLength(1);
});

test("a worktree with changes or commits is kept, and named with what is in it", async () => {
  const path = repository();
  const { run, left } = await on(`path = "${path}"\nmode = "worktree"`);
  const changed = await run("echo more >> README; echo new > other");
  expect(changed.keptWorkspace).toMatchObject({ name: "app", branch: "", commits: 0, changedFiles: 2 });
  const committed = await run(`${identity} && echo more >> README && git commit --quiet -am second`);
  expect(committed).toMatchObject({
    outcome: Outcome.COMPLETED,
    keptWorkspace: { commits: 1, changedFiles: 0, branch: expect.stringContaining("pinion/") },
  });
  const { keptWorkspace } = committed;
  expect(readFileSync(join(keptWorkspace?.path ?? "", "README"), "utf8")).toBe("hello\nmore\n");
  expect(
    git(path, "log", "--oneline", keptWorkspace?.branch ?? "")
      .trim()
      .split("\n"),
  ).toHaveLength(2);
  expect(readFileSync(join(path, "README"), "utf8")).toBe("hello\n");
  expect(left()).toHaveLength(2);
});

test.skipIf(isolationProblem(process.env.PATH) !== undefined)(
  "what an isolated run puts into its repository's configuration is run inside, too, when the daemon looks at it",
  async () => {
    const path = repository();
    const { run, stateDir } = await on(`path = "${path}"\nmode = "worktree"`, 2, "isolate = true");
    const secret = join(stateDir, "secret");
    writeFileSync(secret, "of the daemon");
    const [seen, ran] = [join(path, ".git/seen"), join(path, ".git/ran")];
    const filter = `touch ${ran}; cat ${secret} > ${seen}; cat`;
    const completion = await run(
      `git config filter.evil.clean '${filter}'; echo '* filter=evil' > .gitattributes; echo hella > README`,
    );
    expect(completion).toMatchObject({ outcome: Outcome.COMPLETED, keptWorkspace: { changedFiles: 2 } });
    // Git ran the filter to compare the file, and the filter saw what the run saw.
    expect(existsSync(ran)).toBe(true);
    expect(readFileSync(seen, "utf8")).toBe("");
  },
);

test("a filter of the repository that never ends holds up no result, and the folder is kept", async () => {
  const path = repository();
  const options = { stateDir: makeStateDir(), logger: silentLogger, env: process.env, leaveMsMax: 1_000 };
  const workspace = parseConfig(`[workspaces.app]\npath = "${path}"\nmode = "worktree"`).workspaces.app!;
  const place = await new Workspaces(options).enter(workspace, {
    ...{ workId: "w", again: undefined, confinement: unconfined, onWait: () => {} },
    signal: new AbortController().signal,
  });
  git(path, "config", "filter.slow.clean", "sleep 20");
  writeFileSync(join(place.cwd, ".gitattributes"), "* filter=slow\n");
  writeFileSync(join(place.cwd, "README"), "other\n");
  expect(await place.leave()).toMatchObject({ name: "app", path: place.cwd });
  expect(existsSync(place.cwd)).toBe(true);
});

test("what was kept is swept by age, and then by size, oldest first", async () => {
  const path = repository();
  const { run, left, stateDir } = await on(
    `path = "${path}"\nmode = "worktree"\nkeep = "1h"\nkeep_size = "300KiB"`,
  );
  const first = await run("head -c 200000 /dev/zero > big");
  const old = new Date(Date.now() - 2 * 3_600_000);
  utimesSync(first.keptWorkspace?.path ?? "", old, old);
  const second = await run("head -c 200000 /dev/zero > big");
  expect(left()).toEqual([second.keptWorkspace?.path.split("/").at(-1)]);
  const before = new Date(Date.now() - 60_000);
  utimesSync(second.keptWorkspace?.path ?? "", before, before);
  await run("head -c 200000 /dev/zero > big");
  await run("true");
  expect(left()).toHaveLength(1);
  expect(existsSync(join(stateDir, "workspaces/app", left()[0] ?? "", "big"))).toBe(true);
  expect(git(path, "worktree", "list").trim().split("\n")).toHaveLength(2);
});

test("runs of a shared workspace wait for each other, in order, unless they may not have to", async () => {
  const path = join(makeStateDir(), "shared");
  mkdirSync(path);
  const { assign, session } = await on(`path = "${path}"`);
  const script = "echo begin >> log; sleep 0.5; echo end >> log";
  assign(script);
  assign(script);
  await session.next("complete");
  await session.next("complete");
  expect(readFileSync(join(path, "log"), "utf8")).toBe("begin\nend\nbegin\nend\n");
  const parallel = await on(`path = "${path}"\nparallel = true`);
  // Each run waits for the other: one after the other they would never end.
  const meet = (mine: string, other: string) => `touch ${mine}; until [ -e ${other} ]; do sleep 0.05; done`;
  parallel.assign(meet("a", "b"));
  parallel.assign(meet("b", "a"));
  await parallel.session.next("complete");
  await parallel.session.next("complete");
});

test("a run that is cancelled while it waits for a workspace leaves the queue to the others", async () => {
  const path = join(makeStateDir(), "shared");
  mkdirSync(path);
  const { assign, session } = await on(`path = "${path}"`, 3);
  const first = assign("echo here >&2; until [ -e go ]; do sleep 0.05; done; echo first");
  await session.next("output", ({ attemptToken }) => attemptToken === first.attemptToken);
  const waiting = assign("echo never");
  await session.next("output", ({ attemptToken }) => attemptToken === waiting.attemptToken);
  const third = assign("echo third");
  await session.next("output", ({ attemptToken }) => attemptToken === third.attemptToken);
  session.cancel(waiting);
  await session.next("cancelled");
  writeFileSync(join(path, "go"), "");
  // The third run may begin, and even end, before the result of the first is on the disk.
  const outputOf = async ({ attemptToken }: { attemptToken: string }) =>
    (await session.next("complete", (sent) => sent.attemptToken === attemptToken)).output;
  expect(await outputOf(first)).toBe("first\n");
  expect(await outputOf(third)).toBe("third\n");
});

test("a copy is the run's own, and an empty folder is empty; both are kept when something was made", async () => {
  const path = join(makeStateDir(), "source");
  mkdirSync(join(path, "sub"), { recursive: true });
  writeFileSync(join(path, "sub/file"), "original");
  execFileSync("mkfifo", [join(path, "pipe")]);
  const copy = await on(`path = "${path}"\nmode = "copy"`);
  const same = await copy.run("cat sub/file");
  expect(same).toMatchObject({ output: "original" });
  expect(same.keptWorkspace).toBeUndefined();
  expect(await copy.run("echo changed > sub/file")).toMatchObject({
    keptWorkspace: { changedFiles: 1, commits: 0 },
  });
  expect(readFileSync(join(path, "sub/file"), "utf8")).toBe("original");
  const empty = await on(`mode = "empty"`);
  const nothing = await empty.run("ls -A | wc -l");
  expect(nothing.output.trim()).toBe("0");
  expect(nothing.keptWorkspace).toBeUndefined();
  expect(await empty.run("echo made > it")).toMatchObject({ keptWorkspace: { changedFiles: 1 } });
});

test("a workspace that is not there is said so: at the hello, at the assignment, and when it went away", async () => {
  const path = repository();
  const { session, run } = await on(`path = "${path}"\nmode = "worktree"`);
  expect(session.hello.workspaces).toMatchObject([
    { name: "app", mode: WorkspaceMode.WORKTREE, problem: "" },
  ]);
  expect(session.hello.executors).toMatchObject([{ kind: "sh", type: "command" }]);
  session.assign({ more: { workspace: "other" } });
  expect(await session.next("reject")).toMatchObject({
    reason: RejectReason.UNSUPPORTED,
    message: 'this device has no workspace "other" (it has app); add [workspaces.other] to its device.toml',
  });
  execFileSync("rm", ["-rf", path]);
  expect(await run("true")).toMatchObject({
    outcome: Outcome.FAILED,
    reason: 'the workspace "app" is no git repository with a commit',
  });
});

test("a secret comes from a file, and a file that is not there is named, not its value", async () => {
  const peer = await startPeer();
  const folder = makeStateDir();
  writeFileSync(join(folder, "key"), "sk-from-a-file\n", { mode: 0o600 });
  execFileSync("mkfifo", [join(folder, "pipe")]);
  startDaemon(
    peer.url,
    `[executors.good]
command = ["sh", "-c", "echo $KEY/$OTHER"]
secrets = { KEY = "file:${folder}/key", OTHER = "credential:other" }
[executors.pipe]
command = ["true"]
secrets = { KEY = "file:${folder}/pipe" }
`,
    { env: { PATH: process.env.PATH, CREDENTIALS_DIRECTORY: folder } },
  );
  const session = await settledSession(peer);
  session.assign({ agentKind: "good" });
  expect(await session.next("complete")).toMatchObject({
    outcome: Outcome.FAILED,
    reason: expect.stringMatching(
      /^cannot read the secret OTHER from credential:other: there is no such file/,
    ),
  });
  writeFileSync(join(folder, "other"), "second", { mode: 0o600 });
  session.assign({ agentKind: "good" });
  expect(await session.next("complete")).toMatchObject({ output: "sk-from-a-file/second\n" });
  session.assign({ agentKind: "pipe" });
  expect(await session.next("complete")).toMatchObject({
    reason: expect.stringContaining("it is a FIFO, not a file"),
  });
});
