/**
 * The contents of the Docker image, assembled here without Docker: the built files are enough to
 * serve, without packages beside them; the health check works, and a stop is orderly.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { useDatabase } from "../support/database.ts";
import { temporaryDirectory } from "../support/processes.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const run = promisify(execFile);
const dockerfile = readFileSync(join(root, "Dockerfile"), "utf8");
const database = useDatabase();

/** The directory /app of the image: only the output of the first stage. */
async function putTogether(): Promise<string> {
  const last = dockerfile.slice(dockerfile.lastIndexOf("\nFROM "));
  expect(last.match(/^COPY .*$/gm)).toEqual(["COPY --from=build /app/dist/pinion ./"]);
  const app = await temporaryDirectory();
  await run(process.execPath, [join(root, "scripts/build-command.ts"), "--out", app]);
  return app;
}

/** The words of a line in JSON form, such as ENTRYPOINT and CMD. */
function wordsOf(pattern: RegExp): string[] {
  return JSON.parse(pattern.exec(dockerfile)![1]!);
}

const entrypoint = wordsOf(/^ENTRYPOINT (\[.*\])$/m);
const command = wordsOf(/^CMD (\[.*\])$/m);
const healthCheck = wordsOf(/^HEALTHCHECK [^[]*(\[.*\])$/m);

async function serve(
  app: string,
  env: Record<string, string>,
): Promise<{ child: ChildProcess; url: string }> {
  const child = spawn(process.execPath, [...entrypoint.slice(1), ...command, "--json"], {
    cwd: app,
    env: { PATH: process.env.PATH, PINION_LOG_LEVEL: "warn", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  for await (const line of createInterface({ input: child.stdout! })) {
    return { child, url: (JSON.parse(line) as { url: string }).url };
  }
  throw new Error("it ended before it listened");
}

test("the files of the image know their version", async () => {
  const app = await putTogether();
  const { stdout } = await run(process.execPath, [...entrypoint.slice(1), "--version"], { cwd: app });
  expect(stdout.trim()).toBe(JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version);
});

test("the files of the image serve, the health check tells whether they do, and SIGTERM ends them in order", async () => {
  expect(entrypoint[0]).toBe("node");
  const app = await putTogether();
  const { child, url } = await serve(app, {
    DATABASE_URL: database.url,
    PINION_PORT: "0",
    PINION_DATA: join(app, "state"),
  });
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
  const documentation = await fetch(`${url}/docs/concepts`);
  expect([documentation.status, await documentation.text()]).toEqual([
    200,
    expect.stringContaining('id="turns-and-conversations"'),
  ]);
  const env = { PATH: process.env.PATH, PINION_PORT: new URL(url).port };
  await run(process.execPath, healthCheck.slice(1), { env });
  child.kill("SIGTERM");
  expect(await once(child, "exit")).toEqual([0, null]);
  await expect(run(process.execPath, healthCheck.slice(1), { env })).rejects.toMatchObject({ code: 1 });
}, 60_000);
