/**
 * The places where the owner's token of a first start is shown, and the places where the token
 * never appears.
 */
import { chmod, mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { startPinion, temporaryDirectory } from "../../support/processes.ts";

const database = useDatabase();

test("a log never has it: the file does, for its owner alone", async () => {
  const data = join(await temporaryDirectory(), "data");
  const server = startPinion(["serve", "--port", "0", "--data", data], { DATABASE_URL: database.url });
  let output = "";
  server.child.stdout!.on("data", (chunk) => {
    output += chunk;
  });
  server.child.stderr!.on("data", (chunk) => {
    output += chunk;
  });
  const line = await server.line(/owner's token/);
  expect(line).toContain(join(data, "token"));
  expect((await stat(join(data, "token"))).mode & 0o777).toBe(0o600);
  expect(output).not.toContain((await readFile(join(data, "token"), "utf8")).trim());
  expect(output).not.toMatch(/pin_pat_[0-9A-Za-z]{30}/);
});

test("a secret store may name it beforehand, and only the first start takes it", async () => {
  const { out } = await runCommand({}, "tokens", "generate");
  const token = out.trim();
  const start = async (chosen: string) => {
    const data = join(await temporaryDirectory(), "data");
    const server = startPinion(["serve", "--json", "--port", "0", "--data", data], {
      DATABASE_URL: database.url,
      PINION_BOOTSTRAP_TOKEN: chosen,
    });
    const { url } = JSON.parse(await server.line(/"url"/)) as { url: string };
    return (shown: string) => runCommand({ PINION_URL: url, PINION_TOKEN: shown }, "devices", "list");
  };
  const first = await start(token);
  expect((await first(token)).code).toBe(0);
  const other = (await runCommand({}, "tokens", "generate", "--json")).out;
  const second = await start((JSON.parse(other) as { token: string }).token);
  expect((await second(token)).code).toBe(0);
  expect((await second((JSON.parse(other) as { token: string }).token)).code).not.toBe(0);
  const wrong = startPinion(["serve", "--port", "0", "--data", await temporaryDirectory()], {
    DATABASE_URL: database.url,
    PINION_BOOTSTRAP_TOKEN: "secret",
  });
  await expect(wrong.line(/listens/)).rejects.toThrow(/PINION_BOOTSTRAP_TOKEN.*tokens generate/s);
});

test("directories in which everybody may write are refused with the command that mends it", async () => {
  const data = join(await temporaryDirectory(), "open");
  await mkdir(data);
  await chmod(data, 0o777);
  for (const args of [
    ["serve", "--port", "0", "--data", data],
    ["up", "--port", "0", "--data", data],
    [
      "device",
      "enroll",
      "--url",
      "http://localhost:1",
      "--join-code",
      "AAAA-BBBB-CCCC-DDDD",
      "--state-dir",
      data,
    ],
  ]) {
    const refused = startPinion(args, { DATABASE_URL: database.url });
    await expect(refused.line(/listens/)).rejects.toThrow(`chmod 700 '${data}'`);
  }
});
