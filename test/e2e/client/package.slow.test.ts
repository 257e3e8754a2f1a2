/**
 * The package of clients/ts as a user gets it: packed, installed into an empty project, used as in
 * its README.
 */
import { execFile, execFileSync, spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../support/database.ts";
import { untilStatus, useReplicas } from "../../support/work.ts";

const root = resolve(import.meta.dirname, "../../..");
const run = promisify(execFile);
const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

let project: string;

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "pinion-package-"));
  const built = join(project, "built");
  await run(process.execPath, [join(root, "scripts/build-client.ts"), "--out", built]);
  const { stdout } = await run("npm", ["pack", built, "--json", "--pack-destination", project], {
    cwd: project,
  });
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  const app = join(project, "app");
  mkdirSync(app);
  writeFileSync(join(app, "package.json"), JSON.stringify({ name: "app", private: true, type: "module" }));
  install(app, join(project, filename));
  project = app;
}, 120_000);

afterAll(() => rm(resolve(project, ".."), { recursive: true, force: true }));

/**
 * Unpacks the tarball into node_modules, and links the dependencies named in its manifest from this
 * checkout: undeclared packages are missing, and no registry is needed.
 */
function install(app: string, tarball: string): void {
  const target = join(app, "node_modules/@pinion/client");
  mkdirSync(target, { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "-C", target, "--strip-components=1"]);
  const wanted = [target];
  for (let package_ = wanted.pop(); package_ !== undefined; package_ = wanted.pop()) {
    const manifest = JSON.parse(readFileSync(join(package_, "package.json"), "utf8"));
    const optional = Object.keys(manifest.peerDependenciesMeta ?? {});
    for (const name of Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })) {
      const to = join(app, "node_modules", name);
      const from = join(root, "node_modules", name);
      if (existsSync(to) || optional.includes(name)) continue;
      cpSync(realpathSync(from), to, { recursive: true });
      wanted.push(to);
    }
  }
}

/** Every Node installed on this machine, by version; the tests' own Node is among them. */
function installedNodes(): { version: string; path: string }[] {
  const found = new Map<string, string>([[process.versions.node, process.execPath]]);
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(directory, "node");
    if (!existsSync(path)) continue;
    const version = execFileSync(path, ["-p", "process.versions.node"], { encoding: "utf8" }).trim();
    if (!found.has(version)) found.set(version, path);
  }
  return [...found].map(([version, path]) => ({ version, path }));
}

const nodes = installedNodes().filter(({ version }) => Number(version.split(".")[0]) >= 20);

/** The README's example under a heading. */
function exampleUnder(heading: string): string {
  const readme = readFileSync(join(root, "clients/ts/README.md"), "utf8");
  const [, code] = new RegExp(`## ${heading}\n.*?\`\`\`ts\n(.*?)\`\`\``, "s").exec(readme)!;
  return code!;
}

test("the package holds JavaScript, types and its papers, and nothing of the server", () => {
  const installed = join(project, "node_modules/@pinion/client");
  const files = readdirSync(installed, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name);
  expect(files.filter((name) => !/\.(js|d\.ts)$/.test(name)).sort()).toEqual([
    "LICENSE",
    "README.md",
    "package.json",
  ]);
  expect(readdirSync(join(project, "node_modules"))).not.toContain("kysely");
  const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  expect(manifest).toMatchObject({ name: "@pinion/client", type: "module", exports: { ".": {} } });
  expect(manifest).not.toHaveProperty("private");
  expect(readFileSync(join(installed, "version.js"), "utf8")).toContain(
    `CLIENT_VERSION = "${manifest.version}"`,
  );
});

test.each(nodes)("it is imported by Node $version", async ({ path }) => {
  const script = `
    import { connectDevice, createClients, isNotFound, PinionError } from "@pinion/client";
    import { RunService } from "@pinion/client/gen/pinion/v1/run_pb.js";
    console.log([typeof connectDevice, typeof createClients, isNotFound(1), PinionError.name, RunService.typeName].join());
  `;
  const { stdout } = await run(path, ["--input-type=module", "-e", script], { cwd: project });
  expect(stdout.trim()).toBe("function,function,false,PinionError,pinion.v1.RunService");
});

test("a strict TypeScript project finds its types, and mistakes are found with them", async () => {
  for (const name of ["@types/node", "undici-types"]) {
    cpSync(join(root, "node_modules", name), join(project, "node_modules", name), { recursive: true });
  }
  const compilerOptions = {
    ...{ module: "nodenext", target: "es2022", strict: true, noEmit: true, types: ["node"] },
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
  };
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["use.ts"] }));
  const check = () =>
    run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", project]).then(
      () => "",
      (error: { stdout: string }) => error.stdout,
    );
  const good = [
    exampleUnder("A device in ten lines"),
    ...[exampleUnder("People and services"), exampleUnder("Errors")].map((code) =>
      code.replace(/^import .*\n/gm, ""),
    ),
  ].join("\n");
  const imports =
    'import { createClients, DeviceError, isNotFound, isRetryable, PinionError, RunStatus, waitForRun } from "@pinion/client";\n';
  writeFileSync(join(project, "use.ts"), imports + good);
  expect(await check()).toBe("");
  writeFileSync(join(project, "use.ts"), imports + good.replace('outcome: "completed"', 'outcome: "done"'));
  expect(await check()).toMatch(/'"done"' is not assignable|"done".* is not assignable/);
});

test.each(nodes)("the README's ten lines complete a run on Node $version", async ({ path }) => {
  const { clients, url } = replicas.here;
  const { joinCode } = await clients.fleet.createJoinCode({});
  const stateDir = await mkdtemp(join(project, "state-"));
  const enrolment = `
    import { enroll } from "@pinion/client";
    const me = await enroll(${JSON.stringify({ url, joinCode, label: stateDir.slice(-6), stateDir })});
    console.log(me.deviceId);
  `;
  const enrolled = await run(path, ["--input-type=module", "-e", enrolment], { cwd: project });
  const deviceId = enrolled.stdout.trim();

  const script = join(stateDir, "device.mjs");
  writeFileSync(
    script,
    exampleUnder("A device in ten lines").replaceAll('"./state"', JSON.stringify(stateDir)),
  );
  const device = spawn(path, [script], { cwd: project, stdio: ["ignore", "inherit", "inherit"] });
  onTestFinished(() => void device.kill("SIGKILL"));

  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: `Ten lines ${stateDir.slice(-6)}`, prompt: "ten lines", deviceId },
  });
  const triggered = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  await untilStatus(clients, { workId: triggered.run!.id }, RunStatus.COMPLETED, 20_000);
  const { windows } = await clients.runs.listWindows({ watcherId: watcher!.id });
  expect(windows).toMatchObject([{ extractedData: { output: "did: ten lines" } }]);
});
