import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import pc from "picocolors";
import { expect, test } from "vitest";
import type { Cli } from "../../../src/cli/cli.ts";
import { oneByLabel } from "../../../src/cli/lookup.ts";
import { createProgram, createProgramFor } from "../../../src/cli/program.ts";

function recordingCli(): Cli & { lines: string[] } {
  const lines: string[] = [];
  return {
    env: {},
    colors: pc.createColors(false),
    isTerminal: false,
    columns: Number.POSITIVE_INFINITY,
    out: (line) => void lines.push(line),
    raw: (bytes) => void lines.push(String(bytes)),
    note: (line) => void lines.push(line),
    open: new DisposableStack(),
    program: () => {},
    trust: () => {},
    outliveOutput: () => {},
    setExitCode: () => {},
    lines,
  };
}

function leaves(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leaves);
}

const commands = leaves(await createProgram(recordingCli())).map((command) => {
  const names: string[] = [];
  for (let at: Command | null = command; at?.parent; at = at.parent) names.unshift(at.name());
  return names.join(" ");
});

test.each(commands)("the help of `pinion %s` says what it does and shows an example", async (name) => {
  const cli = recordingCli();
  await expect(
    createProgramFor(cli, name.split(" ")).then((program) =>
      program.parseAsync([...name.split(" "), "--help"], { from: "user" }),
    ),
  ).rejects.toMatchObject({
    exitCode: 0,
  });
  const help = cli.lines.join("\n");
  expect(help).toContain(`Usage: pinion ${name}`);
  expect(help).toMatch(new RegExp(`Examples:\n {2}\\$ pinion ${name}`));
});

test("a device is found by its label, and a label of several is refused with their ids", () => {
  const device = (id: string, label: string) => ({ id, label }) as Parameters<typeof oneByLabel>[0][number];
  const devices = [
    device("1", "mac"),
    device("2", "Mac"),
    device("3", "box"),
    device("4", "twin"),
    device("5", "twin"),
  ];
  expect(oneByLabel(devices, "mac").id).toBe("1");
  expect(oneByLabel(devices, "BOX").id).toBe("3");
  expect(() => oneByLabel(devices, "twin")).toThrow("2 devices");
  expect(() => oneByLabel(devices, "lost")).toThrow('no device is called "lost"');
});

test("a command that is not asked for stands in the help as its own module describes it", async () => {
  const stub = await createProgramFor(recordingCli(), []);
  const whole = await createProgram(recordingCli());
  const described = (program: Command) =>
    program
      .createHelp()
      .visibleCommands(program)
      .map((command) => `${command.name()}: ${command.description()}`);
  expect(described(stub)).toEqual(described(whole));
  expect(stub.helpInformation()).toBe(whole.helpInformation());
});

test("the help is there at once, for it loads no module of a command, of the client, or of the protocol", () => {
  const watch = `
    import { registerHooks } from "node:module";
    const loaded = [];
    registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
    process.on("exit", () => console.error(JSON.stringify(loaded)));
  `;
  const main = fileURLToPath(new URL("../../../src/cli/main.ts", import.meta.url));
  const watched = spawnSync(
    process.execPath,
    ["--import", `data:text/javascript,${encodeURIComponent(watch)}`, main, "--help"],
    { encoding: "utf8", env: { PATH: process.env.PATH } },
  );
  expect(watched.stdout).toContain("Usage: pinion");
  const loaded = JSON.parse(watched.stderr.trim()) as string[];
  expect(
    loaded.filter((url) => /\/cli\/(commands\/(?!nouns)|apply\/)|\/clients\/ts\/|zod|grpc|kysely/.test(url)),
  ).toEqual([]);
  expect(loaded.length).toBeLessThan(40);
});
