/**
 * The first minutes of a newcomer, as `npm run newcomer` plays them: a clone with `npm ci` and `npm
 * start`, the one-file program without Node, and a second account as the other laptop. Minutes
 * long, and asks npm's registry. The limits of the clock are the script's own exit code; here only
 * the steps count, since another machine may be busy.
 */
import { execFile } from "node:child_process";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../../..");

test("each step of a newcomer leads to the next, to a stored result and to a second device", async () => {
  const printed = await new Promise<string>((done) => {
    execFile(process.execPath, [join(root, "scripts/newcomer.ts"), "--json"], (_error, out) => done(out));
  });
  const { steps } = JSON.parse(printed) as { steps: { step: string; seconds: number }[] };
  expect(steps.map(({ step }) => step)).toEqual([
    "git clone (from this disk)",
    "npm ci",
    "npm start, until the first result is stored",
    "gunzip, chmod +x",
    "pinion --help, processor time",
    "pinion up, until the first result is stored",
    "install.sh: downloaded, checked, enrolled, started",
    "its device is connected",
    "its first run is stored",
  ]);
}, 900_000);
