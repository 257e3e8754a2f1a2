/** A front door of several cells: a real proxy with its configuration of ops/cells. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasOpenssl, makeCertificate } from "./certificate.ts";
import { noticeSkipped } from "./notice.ts";
import { eventually, isListening } from "./processes.ts";
import { findProgram, freePort } from "./programs.ts";

export type DoorKind = "haproxy" | "nginx";

/** The reason why tests with a front door are skipped here; printed once, visible to people. */
export function missingDoor(kind: DoorKind): string | undefined {
  if (hasOpenssl && findProgram(kind, undefined)) return undefined;
  return noticeSkipped(
    `${kind} as the front door of cells`,
    `no ${kind} or openssl (apt-get install ${kind})`,
  );
}

export type FrontDoor = {
  /** The one address of all cells. */
  url: string;
  /** Its certificate. */
  ca: string;
  /** A plain request over HTTP/1.1. */
  ask(path: string, options?: Asked): Promise<{ status: number; body: string; setCookie: string }>;
  close(): Promise<void>;
};

type Asked = { method?: string; headers?: Record<string, string>; body?: string };

/** A cell's one replica: its port for calls and its port for probes. */
export type Behind = { url: string; probePort: number };

/** Starts a proxy in front of the cells eu1 and eu2. */
export async function startFrontDoor(
  kind: DoorKind,
  cells: { eu1: Behind; eu2: Behind },
): Promise<FrontDoor> {
  const folder = mkdtempSync(join(tmpdir(), "pinion-door-"));
  const { cert, key } = makeCertificate();
  writeFileSync(join(folder, "pinion.crt"), cert);
  writeFileSync(join(folder, "pinion.key"), key);
  writeFileSync(join(folder, "pinion.pem"), key + cert);
  const port = await freePort();
  const file = join(folder, "door.conf");
  writeFileSync(file, configured(kind, { folder, port, cells }));
  const args = { haproxy: ["-db", "-f", file], nginx: ["-e", "stderr", "-g", "daemon off;", "-c", file] }[
    kind
  ];
  const door = { said: "" };
  const child: ChildProcess = spawn(findProgram(kind, undefined)!, args, {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const orphan = () => child.kill("SIGTERM");
  process.once("exit", orphan);
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on("data", (data) => {
      door.said = `${door.said}${data}`.slice(-4_000);
    });
  }
  await eventually(() => isListening(port), `${kind} ${door.said}`);
  return {
    url: `https://127.0.0.1:${port}`,
    ca: cert,
    ask: (path, options = {}) => ask({ port, ca: cert, path, ...options }),
    async close() {
      process.off("exit", orphan);
      if (child.exitCode === null) {
        const ended = new Promise((resolve) => child.once("exit", resolve));
        // An orderly end: the workers of nginx would outlive a killed master.
        child.kill("SIGTERM");
        await ended;
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The configuration of ops/cells with the addresses of a test. */
function configured(
  kind: DoorKind,
  { folder, port, cells }: { folder: string; port: number; cells: { eu1: Behind; eu2: Behind } },
): string {
  const path = { haproxy: "ops/cells/haproxy.cfg", nginx: "ops/cells/nginx.conf" }[kind];
  const address = ({ url, probePort }: Behind) =>
    `${new URL(url).host}${kind === "haproxy" ? ` port ${probePort}` : ""}`;
  const withCells = readFileSync(path, "utf8")
    .replaceAll(`/etc/${kind}/pinion.`, `${folder}/pinion.`)
    .replace("10.0.0.11:7420", address(cells.eu1))
    .replace("10.0.1.11:7420", address(cells.eu2))
    .replace(/^ *server .*10\.0\.[01]\.12:7420.*\n/gm, "");
  return kind === "haproxy"
    ? withCells.replace("bind :443", `bind 127.0.0.1:${port}`)
    : withCells
        .replace("listen 443", `listen 127.0.0.1:${port}`)
        .replace("/run/nginx.pid", `${folder}/nginx.pid`)
        .replace(/^user .*;\n/m, "");
}

function ask(asked: Asked & { port: number; ca: string; path: string }): ReturnType<FrontDoor["ask"]> {
  const { port, ca, path, method = "GET", headers = {}, body } = asked;
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, ca, path, method, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (data) => {
        text += data;
      });
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          body: text,
          setCookie: (response.headers["set-cookie"] ?? []).join(", "),
        }),
      );
    });
    sent.on("error", reject);
    sent.end(body);
  });
}
