/** The messages and exit codes of the command when a requirement is missing or wrong. */
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createSecureServer } from "node:http2";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, inject, onTestFinished, test, vi } from "vitest";
import { type Ended, runCommand } from "../../support/command.ts";
import { startConnectProxy } from "../../support/connect-proxy.ts";
import { useDatabase } from "../../support/database.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";

const home = mkdtempSync(join(tmpdir(), "pinion-troubles-"));
const database = useDatabase({ per: "file" });
let replica: TestReplica;
let tls: { cert: string; key: string };

beforeAll(async () => {
  replica = await openTestReplica(database.url);
  const [certFile, keyFile] = [join(home, "cert.pem"), join(home, "key.pem")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  const made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", keyFile, "-out", certFile];
  execFileSync("openssl", ["req", "-x509", ...made, ...subject], { stdio: "ignore" });
  tls = { cert: readFileSync(certFile, "utf8"), key: readFileSync(keyFile, "utf8") };
});
afterAll(async () => {
  await replica.stop();
  rmSync(home, { recursive: true, force: true });
});

const pinion = (...args: string[]) => runCommand({ HOME: home, PINION_DATA: join(home, "data") }, ...args);

async function listen(server: Pick<Server, "listen" | "close" | "address" | "once">): Promise<number> {
  await new Promise<void>((done) => {
    server.listen(0, "127.0.0.1", () => done());
  });
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

/** A port on which no process listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

const list = (url: string, token = replica.token) => pinion("--url", url, "--token", token, "runs", "list");

/** Expects one error, one advice, no stack. */
function expectTold(ended: Ended, code: number, error: RegExp, advice: RegExp): void {
  expect(ended.err).toMatch(/^error: .+\n {2}→ .+\n$/);
  expect(ended.err.split("\n")[0]).toMatch(error);
  expect(ended.err.split("\n")[1]).toMatch(advice);
  expect(ended).toMatchObject({ code, out: "" });
}

test("a server that is not there, and a host that nobody knows", async () => {
  const url = `http://127.0.0.1:${await freePort()}`;
  expectTold(await list(url), 3, new RegExp(`no Pinion at ${url}`), /pinion up.*PINION_URL/);
  expectTold(await list("http://nowhere.invalid"), 3, /name nowhere.invalid is not known/, /--url/);
});

test("a token that is mistyped, missing or too weak", async () => {
  expectTold(await list(replica.url, "pin_pat_x"), 4, /refuses the token: .*mistyped/, /--token/);
  expectTold(await pinion("--url", replica.url, "runs", "list"), 4, /a token is needed/, /PINION_TOKEN/);
  const made = await pinion(
    ...["--url", replica.url, "--token", replica.token, "--json"],
    ...["tokens", "create", "weak", "--scope", "read"],
  );
  const { secret } = JSON.parse(made.out);
  const weak = await pinion("--url", replica.url, "--token", secret, "watchers", "pause", "x");
  expectTold(weak, 4, /may not do that/, /tokens create --scope/);
});

test("TLS where none is spoken, none where TLS is, and a certificate that nobody vouches for", async () => {
  const secure = replica.url.replace("http:", "https:").replace("127.0.0.1", "localhost");
  expectTold(await list(secure), 3, /does not speak TLS/, /use http:\/\/localhost/);
  const port = await listen(createSecureServer({ ...tls, allowHTTP1: true }));
  expectTold(await list(`http://127.0.0.1:${port}`), 3, /speaks TLS/, /use https:\/\//);
  expectTold(await list(`https://127.0.0.1:${port}`), 3, /certificate .* not trusted/, /NODE_EXTRA_CA_CERTS/);
});

test("something else that answers there, and a URL of another kind", async () => {
  const web = await listen(createHttpServer((_request, response) => response.end("<html>")));
  expectTold(await list(`http://127.0.0.1:${web}`), 3, /not as a Pinion does/, /port/);
  const chatty = await listen(createServer((socket) => socket.end("SSH-2.0-x\r\n")));
  expectTold(await list(`http://127.0.0.1:${chatty}`), 3, /not as a Pinion does/, /port/);
  expectTold(await list("postgres://localhost/x"), 2, /neither http nor https/, /http:\/\/localhost/);
});

test("a connection that breaks under the real command ends it with words, not with a stack", async () => {
  const main = fileURLToPath(new URL("../../../src/cli/main.ts", import.meta.url));
  const port = await listen(createServer((socket) => socket.end("SSH-2.0-x\r\n")));
  const args = [main, "--url", `http://127.0.0.1:${port}`, "--token", replica.token, "runs", "list"];
  const ended = await new Promise<Ended>((done) => {
    const env = { PATH: process.env.PATH, HOME: home };
    execFile(process.execPath, args, { env, cwd: home, timeout: 20_000 }, (error, out, err) => {
      done({ code: error ? Number(error.code ?? Number.NaN) : 0, out, err });
    });
  });
  expectTold(ended, 3, /not as a Pinion does/, /port/);
});

test("a proxy that refuses, one that is not there, and a setting that names none", async () => {
  const closed = await startConnectProxy({ status: 403 });
  const through = (proxy: string) =>
    pinion("--proxy", proxy, "--url", replica.url, "--token", replica.token, "runs", "list");
  expectTold(await through(closed.address), 3, /--proxy\) does not allow .* \(403 Forbidden\)/, /NO_PROXY/);
  expectTold(await through(`127.0.0.1:${await freePort()}`), 3, /--proxy\) cannot be reached/, /--proxy/);
  expectTold(await through("ftp://proxy:21"), 2, /--proxy is "ftp:\/\/proxy:21"/, /write --proxy like/);
  const open = await startConnectProxy();
  expect(await through(open.address)).toMatchObject({ code: 0 });
  expect(open.passed).toHaveLength(1);
  const doctor = await pinion(
    "--proxy",
    open.address,
    "--url",
    replica.url,
    "--token",
    replica.token,
    "doctor",
  );
  expect(doctor.out).toMatch(/✓ proxy .*127.0.0.1:\d+ leads to the server \(--proxy\)/);
});

test("a proxy of the environment is never asked for this machine itself", async () => {
  const closed = await startConnectProxy({ status: 403 });
  for (const name of ["http_proxy", "HTTP_PROXY", "ALL_PROXY"]) vi.stubEnv(name, closed.address);
  onTestFinished(() => void vi.unstubAllEnvs());
  expect(await list(replica.url)).toMatchObject({ code: 0 });
  expect(closed.refused).toEqual([]);
});

test("a port that is taken by a Pinion, and by something else", async () => {
  const { port } = new URL(replica.url);
  const again = await pinion("serve", "--port", port, "--database-url", database.url);
  expectTold(again, 6, new RegExp(`port ${port} already`), /--port and --data/);
  const other = await listen(createServer());
  const second = await pinion("serve", "--port", String(other), "--database-url", database.url);
  expectTold(second, 6, new RegExp(`port ${other} is taken`), /--port/);
});

test.each(["serve", "migrate"])("`pinion %s` on a database that is not there", async (command) => {
  const away = `postgres://127.0.0.1:${await freePort()}/x`;
  expectTold(await pinion(command, "--database-url", away), 3, /no way in/, /is PostgreSQL running/);
  const missing = new URL(inject("clusterUrl"));
  missing.pathname = "/nobody_made_it";
  expectTold(
    await pinion(command, "--database-url", missing.href),
    3,
    /database "nobody_made_it" does not exist/,
    /createdb/,
  );
  expectTold(
    await pinion(command, "--database-url", "mysql://localhost/x"),
    2,
    /mysql:\/\/ is not the URL/,
    /postgres:\/\//,
  );
});

test.each(["serve", "migrate"])("`pinion %s` on a PostgreSQL that is too old", async (command) => {
  const { port, hostname } = new URL(database.url);
  // A real PostgreSQL behind a proxy that makes its version look older.
  const proxy = createServer((socket) => {
    const upstream = connect(Number(port), hostname);
    socket.pipe(upstream);
    upstream.on("data", (bytes) => {
      const text = bytes.toString("latin1").replace(/\b1[5-9](\d{4})\b/g, "14$1");
      socket.write(Buffer.from(text, "latin1"));
    });
    for (const end of [socket, upstream]) {
      end.on("error", () => {});
      end.on("close", () => [socket, upstream].forEach((each) => void each.destroy()));
    }
  });
  const aged = new URL(database.url);
  aged.host = `127.0.0.1:${await listen(proxy)}`;
  expectTold(await pinion(command, "--database-url", aged.href), 6, /is too old/, /15 or newer/);
});
