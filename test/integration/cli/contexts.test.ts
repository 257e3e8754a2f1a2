/**
 * `pinion login` and the contexts: a server and its token, found from any directory; and ids by
 * their prefix.
 */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runCommand, watchCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { enrolDevice } from "../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";
import { startWork } from "../../support/work.ts";

const database = useDatabase({ per: "file" });
const place = mkdtempSync(join(tmpdir(), "pinion-contexts-"));
const tokenFile = join(place, "token");
let replica: TestReplica;
let other: TestReplica;
let homes = 0;

beforeAll(async () => {
  [replica, other] = await Promise.all([openTestReplica(database.url), openTestReplica(database.url)]);
  writeFileSync(tokenFile, `${replica.token}\n`, { mode: 0o600 });
});
afterAll(async () => {
  await Promise.all([replica.stop(), other.stop()]);
  rmSync(place, { recursive: true, force: true });
});

/** A person with an empty home, in a directory without Pinion's files. */
function person() {
  homes += 1;
  const home = join(place, `home-${homes}`);
  const env = { HOME: home, PINION_DATA: join(place, "nothing-here") };
  return { home, env, type: (...args: string[]) => runCommand(env, ...args) };
}

test("after a login every command finds server and token, and only the person may read where they are kept", async () => {
  const { home, type } = person();
  const ended = await type("login", replica.url, "--name", "lab", "--token-file", tokenFile);
  expect(ended).toMatchObject({ code: 0, out: expect.stringContaining("lab is the current context") });
  expect(statSync(join(home, ".config/pinion/contexts.json")).mode & 0o777).toBe(0o600);
  expect((await type("devices", "list", "--json")).code).toBe(0);
  expect((await type("logout")).code).toBe(0);
  expect(readFileSync(join(home, ".config/pinion/contexts.json"), "utf8")).not.toContain(replica.token);
});

test("without a token a code is shown; the person's yes on the page logs in, the person's no does not", async () => {
  const { env, type } = person();
  const decide = (confirm: boolean) => (line: string) => {
    const code = /confirm the code {2}(\S+)/.exec(line)?.[1];
    if (code) void replica.clients.signIns.decideLogin({ userCode: code, confirm });
  };
  const denied = await watchCommand(env, decide(false), "login", replica.url, "--name", "lab");
  expect(denied).toMatchObject({ code: 4, err: expect.stringContaining("turned down on the page") });
  expect((await type("context", "list", "--json")).out).toBe('{"contexts":[]}\n');

  const ended = await watchCommand(env, decide(true), "login", replica.url, "--name", "lab");
  expect(ended).toMatchObject({ code: 0, out: expect.stringContaining("lab is the current context") });
  expect(ended.err).toContain(`open ${replica.url}/#/login?code=`);
  expect((await type("devices", "list")).code).toBe(0);
}, 30_000);

/** `secret-tool` as its manual describes it, on a file; a locked keychain refuses. */
const secretTool = (folder: string) => `#!/bin/sh
[ -e ${folder}/locked ] && { echo "Cannot get secret of a locked object" >&2; exit 1; }
verb=$1; shift
case $1 in --label=*) shift ;; esac
file=${folder}/$(echo "$*" | tr ' ' '_')
case $verb in
  store) cat >"$file" ;;
  lookup) cat "$file" 2>/dev/null ;;
  clear) rm -f "$file" ;;
esac
`;

test.skipIf(process.platform !== "linux")(
  "where there is a keychain, the token is in it alone, and leaves it with the context",
  async () => {
    const { home, env } = person();
    const [bin, ring] = [join(home, "bin"), join(home, "ring")];
    for (const folder of [bin, ring]) mkdirSync(folder, { recursive: true });
    writeFileSync(join(bin, "secret-tool"), secretTool(ring), { mode: 0o755 });
    const session = { ...env, PATH: `${bin}:/usr/bin:/bin`, DBUS_SESSION_BUS_ADDRESS: "unix:path=/nowhere" };
    const type = (...args: string[]) => runCommand(session, ...args);
    const ended = await type("login", replica.url, "--name", "lab", "--token-file", tokenFile);
    expect(ended).toMatchObject({ code: 0, err: expect.stringContaining("kept in the keychain") });
    expect(readFileSync(join(home, ".config/pinion/contexts.json"), "utf8")).not.toContain(replica.token);
    expect((await type("context", "list")).out).toMatch(/lab .* keychain/);
    expect((await type("devices", "list")).code).toBe(0);

    writeFileSync(join(ring, "locked"), "");
    const locked = await type("devices", "list");
    expect(locked).toMatchObject({
      code: 4,
      err: expect.stringContaining("the keychain does not give the token"),
    });
    const elsewhere = await type("login", replica.url, "--name", "two", "--token-file", tokenFile);
    expect(elsewhere.err).toContain("the keychain does not take the token");
    expect((await type("context", "list", "--json")).out).toContain('"kept_in":"file"');
    rmSync(join(ring, "locked"));

    expect((await type("logout", "lab")).code).toBe(0);
    expect(readdirSync(ring)).toEqual([]);
    const plain = await type(
      "login",
      replica.url,
      "--name",
      "lab",
      "--token-file",
      tokenFile,
      "--no-keychain",
    );
    expect(plain.err).toContain("contexts.json");
  },
);

test("a token that the server does not take is not kept", async () => {
  const { type } = person();
  writeFileSync(join(place, "wrong"), `${replica.token.slice(0, -1)}x\n`);
  expect((await type("login", replica.url, "--token-file", join(place, "wrong"))).code).toBe(4);
  expect((await type("context", "list", "--json")).out).toBe('{"contexts":[]}\n');
});

test("contexts are listed and chosen, for one command or from now on, and what is not there is named", async () => {
  const { type } = person();
  await type("login", replica.url, "--name", "one", "--token-file", tokenFile);
  await type("login", other.url, "--name", "two", "--token-file", tokenFile);
  expect(JSON.parse((await type("context", "list", "--json")).out).contexts).toEqual([
    { name: "one", url: replica.url, is_current: false, kept_in: "file" },
    { name: "two", url: other.url, is_current: true, kept_in: "file" },
  ]);
  expect((await type("devices", "join-code", "--context", "one")).err).toContain(replica.url);
  expect((await type("devices", "join-code")).err).toContain(other.url);
  expect((await type("context", "use", "one")).code).toBe(0);
  expect((await type("devices", "join-code")).err).toContain(replica.url);
  expect(await type("context", "use", "three")).toMatchObject({
    code: 5,
    err: expect.stringContaining("there are one, two"),
  });
});

test("a context's token goes to its own server only, and is found for that server by its address", async () => {
  const { type } = person();
  await type("login", replica.url, "--name", "one", "--token-file", tokenFile);
  expect((await type("devices", "list", "--url", replica.url)).code).toBe(0);
  expect(await type("devices", "list", "--url", other.url)).toMatchObject({ code: 4 });
});

test("a directory with a Pinion of its own goes before the current context, and a named context before the directory", async () => {
  const { env, type } = person();
  await type("login", replica.url, "--name", "one", "--token-file", tokenFile);
  const data = mkdtempSync(join(place, "data-"));
  writeFileSync(join(data, "url"), `${other.url}\n`);
  writeFileSync(join(data, "token"), `${replica.token}\n`);
  const here = { ...env, PINION_DATA: data };
  expect((await runCommand(here, "devices", "join-code")).err).toContain(other.url);
  expect((await runCommand(here, "devices", "join-code", "--context", "one")).err).toContain(replica.url);
});

test("a file that others may read is refused with what mends it", async () => {
  const { home, type } = person();
  await type("login", replica.url, "--token-file", tokenFile);
  chmodSync(join(home, ".config/pinion/contexts.json"), 0o644);
  expect(await type("devices", "list")).toMatchObject({ code: 6, err: expect.stringContaining("chmod 600") });
});

test("runs and devices are named by the beginning of their ids; what fits several, none or nothing is told apart", async () => {
  const { clients, url, token } = replica;
  const device = await enrolDevice(clients, "box");
  const run = await startWork(clients, device);
  const second = await startWork(clients, device);
  const type = (...args: string[]) => runCommand({ PINION_URL: url, PINION_TOKEN: token }, ...args);
  const found = await type("runs", "get", run.id.slice(0, -3), "--json");
  expect(JSON.parse(found.out)).toMatchObject({ id: run.id });
  const shared = [...run.id].findIndex((letter, at) => letter !== second.id[at]);
  expect(await type("runs", "get", run.id.slice(0, shared))).toMatchObject({
    code: 2,
    err: expect.stringContaining(second.id),
  });
  expect(await type("runs", "get", "ffffffffff")).toMatchObject({ code: 5 });
  expect(await type("runs", "get", "what")).toMatchObject({
    code: 2,
    err: expect.stringContaining("is no run id"),
  });
  const named = await type("devices", "get", device.deviceId.slice(0, -4), "--json");
  expect(JSON.parse(named.out)).toMatchObject({ id: device.deviceId });
});
