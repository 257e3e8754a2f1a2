/** A front door of several cells: a real proxy with its configuration of ops/cells. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasOpenssl, writeCertificate } from "./certificate.ts";
import { noticeSkipped } from "./notice.ts";
import { eventually, isListening } from "./processes.ts";
import { findProgram, freePort } from "./programs.ts";

export type DoorKind = "haproxy" | "nginx" | "envoy";

/** The reason why tests with a front door are skipped here; printed once, visible to people. */
export function missingDoor(kind: DoorKind): string | undefined {
  if (hasOpenssl && findProgram(kind, undefined)) return undefined;
  const from = kind === "envoy" ? "Envoy's releases" : `apt-get install ${kind}`;
  return noticeSkipped(`${kind} as the front door of cells`, `no ${kind} or openssl (${from})`);
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
  const { cert, key } = writeCertificate(folder);
  writeFileSync(join(folder, "pinion.crt"), cert);
  writeFileSync(join(folder, "pinion.key"), key);
  writeFileSync(join(folder, "pinion.pem"), key + cert);
  const port = await freePort();
  const file = join(folder, "door.yaml");
  writeFileSync(file, configured[kind]({ folder, port, cells }));
  const args = {
    haproxy: ["-db", "-f", file],
    nginx: ["-e", "stderr", "-g", "daemon off;", "-c", file],
    // Another Envoy of the machine may have the common memory of the first number.
    envoy: ["--use-dynamic-base-id", "--log-level", "warning", "-c", file],
  }[kind];
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

type Place = { folder: string; port: number; cells: { eu1: Behind; eu2: Behind } };

const read = (kind: DoorKind, file: string, { folder }: Place) =>
  readFileSync(`ops/cells/${file}`, "utf8").replaceAll(`/etc/${kind}/pinion.`, `${folder}/pinion.`);

/** The configurations of ops/cells with the addresses of a test, and one replica in each cell. */
const configured: Record<DoorKind, (place: Place) => string> = {
  haproxy(place) {
    const address = ({ url, probePort }: Behind) => `${new URL(url).host} port ${probePort}`;
    return withServers(read("haproxy", "haproxy.cfg", place), place, address).replace(
      "bind :443",
      `bind 127.0.0.1:${place.port}`,
    );
  },
  nginx(place) {
    return withServers(read("nginx", "nginx.conf", place), place, ({ url }) => new URL(url).host)
      .replace("listen 443", `listen 127.0.0.1:${place.port}`)
      .replace("/run/nginx.pid", `${place.folder}/nginx.pid`)
      .replace(/^user .*;\n/m, "");
  },
  envoy(place) {
    let text = read("envoy", "envoy.yaml", place)
      .replace(/^ +- endpoint:\n.*\n.*\n +address: 10\.0\.[01]\.12\n(?:.*\n){3}/gm, "")
      .replace("port_value: 9901", "port_value: 0")
      .replace(/address: 0\.0\.0\.0\n( +)port_value: 443/, `address: 127.0.0.1\n$1port_value: ${place.port}`);
    for (const [was, { url, probePort }] of [
      ["10.0.0.11", place.cells.eu1],
      ["10.0.1.11", place.cells.eu2],
    ] as const) {
      const { hostname, port } = new URL(url);
      const endpoint = new RegExp(
        `address: ${was.replaceAll(".", "\\.")}\n( +)port_value: 7420\n( +)health_check_config:\n( +)port_value: 7421`,
      );
      if (!endpoint.test(text)) throw new Error(`ops/cells/envoy.yaml has no endpoint ${was}`);
      text = text.replace(
        endpoint,
        `address: ${hostname}\n$1port_value: ${port}\n$2health_check_config:\n$3port_value: ${probePort}`,
      );
    }
    return text;
  },
};

function withServers(text: string, { cells }: Place, address: (cell: Behind) => string): string {
  return text
    .replace("10.0.0.11:7420", address(cells.eu1))
    .replace("10.0.1.11:7420", address(cells.eu2))
    .replace(/^ *server .*10\.0\.[01]\.12:7420.*\n/gm, "");
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
