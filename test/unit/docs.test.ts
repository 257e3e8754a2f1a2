/** The files, commands, options and variables named in the pages exist. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { parseConfig } from "@pinion/client";
import type { Command } from "commander";
import pc from "picocolors";
import { expect, test } from "vitest";
import { commandSettings } from "../../src/cli/command-settings.ts";
import { createProgram } from "../../src/cli/program.ts";
import { serverSettings } from "../../src/config.ts";
import { blocksOf, pages, root, textOf } from "../support/docs.ts";

const prose = (page: string) =>
  textOf(page).replaceAll(/^ *```[\s\S]*?^ *```/gm, (code) => code.replaceAll(/./g, ""));

/** The anchors of a page's headings. */
function anchorsOf(page: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading] of prose(page).matchAll(/^#+ +(.*)$/gm)) {
    const slug = heading!
      .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-");
    let name = slug;
    for (let again = 1; anchors.has(name); again += 1) name = `${slug}-${again}`;
    anchors.add(name);
  }
  return anchors;
}

test("every link leads to a file of the repository, and every anchor to a heading", () => {
  const broken = pages.flatMap((page) =>
    [...prose(page).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target]) => {
      if (/^[a-z]+:/.test(target!)) return [];
      const [path, anchor] = target!.split("#");
      const file = path ? normalize(join(dirname(page), path)) : page;
      if (!existsSync(join(root, file))) return [`${page}: ${target}`];
      return anchor && !anchorsOf(file).has(anchor) ? [`${page}: ${target} (no such heading)`] : [];
    }),
  );
  expect(broken).toEqual([]);
});

test("neither a page nor the command tells people to run a package of the name pinion, which is not ours", () => {
  const sources = readdirSync(join(root, "src/cli"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => join("src/cli", file));
  const telling = [...pages, ...sources].filter((file) =>
    /npx (-y )?pinion/.test(readFileSync(join(root, file), "utf8")),
  );
  expect(telling).toEqual([]);
});

test("every page can be reached from the README", () => {
  const seen = new Set<string>();
  const visit = (page: string) => {
    if (seen.has(page) || !page.endsWith(".md") || !existsSync(join(root, page))) return;
    seen.add(page);
    for (const [, target] of prose(page).matchAll(/\]\(([^)#\s]+)/g)) {
      const file = normalize(join(dirname(page), target!)).replace(/\/$/, "");
      visit(file);
      visit(`${file}/README.md`);
    }
  };
  visit("README.md");
  expect(pages.filter((page) => !seen.has(page))).toEqual([]);
});

/** Base directories of paths in the prose: pages about the code omit the obvious part. */
const bases = ["", "src", "src/server", "clients/ts/src"];

test("every file of ours that a page names is there", () => {
  const named = pages.flatMap((page) =>
    [...prose(page).matchAll(/`((?:[\w-]+\/)+[\w.-]+\.(?:tsx?|mjs|md|toml|ya?ml|json|py|go))`/g)].map(
      ([, path]) => [page, path!] as const,
    ),
  );
  expect(named.length).toBeGreaterThan(60);
  const missing = named.filter(([, path]) => !bases.some((base) => existsSync(join(root, base, path))));
  expect(missing.map(([page, path]) => `${page}: ${path}`)).toEqual([]);
});

test("every configuration of a device that a page shows can be used as it stands", () => {
  const shown = pages
    .flatMap(blocksOf)
    .filter(({ language, text }) => language === "toml" && text.includes("[device]"));
  expect(shown.length).toBeGreaterThan(1);
  for (const { page, line, text } of shown) {
    expect(parseConfig(text).defaultExecutor, `${page}:${line}`).toBe("claude-code");
  }
});

test("every page that a file names is there", () => {
  const missing = ["src", "clients/ts/src", "web/src", "scripts", "bench", "ops", "test"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((path) => /\.(tsx?|yaml|yml|toml|mjs)$/.test(path) && !path.includes("node_modules"))
      .flatMap((path) =>
        [
          ...readFileSync(join(root, folder, path), "utf8").matchAll(
            /\bdocs\/(?:decisions\/\d{4}|[\w/-]+\.md)/g,
          ),
        ]
          .map(([name]) => name)
          .filter((name) => !isThere(name))
          .map((name) => `${folder}/${path} names ${name}`),
      ),
  );
  expect(missing).toEqual([]);
});

function isThere(name: string): boolean {
  if (name.endsWith(".md")) return existsSync(join(root, name));
  const number = name.split("/").at(-1)!;
  return readdirSync(join(root, "docs/decisions")).some((file) => file.startsWith(number));
}

const program = await createProgram({
  env: {},
  colors: pc.createColors(false),
  isTerminal: false,
  columns: 100,
  out: () => {},
  raw: () => {},
  note: () => {},
  open: new DisposableStack(),
  program: () => {},
  trust: () => {},
  outliveOutput: () => {},
  setExitCode: () => {},
});

const childrenOf = (command: Command) =>
  command.commands.filter((child) => child.name() !== "help" && child.name() !== "complete");

const childOf = (command: Command, word: string) =>
  command.commands.find((child) => child.name() === word || child.aliases().includes(word));

const takes = (command: Command, flag: string): boolean =>
  ["-h", "--help"].includes(flag) ||
  command.options.some((option) => option.short === flag || option.long === flag) ||
  (command.parent !== null && takes(command.parent, flag));

/** The problem of a command line in a page; undefined if the line can be typed. */
function problemOf(line: string): string | undefined {
  const [words] = line
    .replaceAll(/"[^"]*"|'[^']*'|\$\([^)]*\)/g, "VALUE")
    .replaceAll("\\|", "|")
    .split(/ -- | \| | && | > | {2}#/);
  let command: Command = program;
  for (const word of words!.split(/\s+/).slice(1)) {
    if (word.startsWith("-")) {
      const flag = word.split("=")[0]!.replace(/[,.;:)]+$/, "");
      for (const one of flag.split("|")) {
        if (!takes(command, one)) return `${line}: ${command.name()} has no option ${one}`;
      }
    } else if (childrenOf(command).length > 0 && /^[a-z|-]+$/.test(word)) {
      const names = word.split("|");
      const unknown = names.find((name) => !childOf(command, name));
      if (unknown) return `${line}: ${command.name()} has no command ${unknown}`;
      command = childOf(command, names[0]!)!;
    }
  }
  return undefined;
}

/** Lines that begin with the command, in code of either kind. */
function commandLinesOf(page: string): string[] {
  const inline = [...prose(page).matchAll(/`((?:\.\/)?pinion [^`]+)`/g)].map(([, code]) => code!);
  const lines = blocksOf(page).flatMap(({ text }) =>
    [...text.replaceAll(/\\\n\s*/g, "").matchAll(/(?:^|[(;] ?|\.\/)(pinion [a-z][^\n)]*)/gm)].map(
      ([, code]) => code!,
    ),
  );
  return [...inline, ...lines].map((line) => line.replace(/^\.\//, "").replaceAll(/\s+/g, " "));
}

test("every command and option that a page names can be typed", () => {
  const lines = pages.map((page) => [page, commandLinesOf(page)] as const);
  expect(lines.flatMap(([, found]) => found).length).toBeGreaterThan(80);
  const problems = lines.flatMap(([page, found]) =>
    found.map(problemOf).flatMap((problem) => (problem ? [`${page}: ${problem}`] : [])),
  );
  expect(problems).toEqual([]);
  expect(problemOf("pinion runs lst")).toBe("pinion runs lst: runs has no command lst");
  expect(problemOf("pinion runs list --nope")).toBe("pinion runs list --nope: list has no option --nope");
});

test("the page of the command has every command, and no other", () => {
  const page = textOf("docs/cli.md");
  const rows = [...page.slice(page.indexOf("## Using")).matchAll(/^\| (`[^|]*`[^|]*) \|/gm)];
  const documented = new Map<string, string[]>();
  for (const [, cell] of rows) {
    const [group, ...names] = [...cell!.matchAll(/`([a-z-]+)`/g)].map(([, name]) => name!);
    if (group && childOf(program, group)) documented.set(group, names);
  }
  for (const group of childrenOf(program)) {
    const names = childrenOf(group).map((child) => child.name());
    if (documented.has(group.name()) && names.length > 0) {
      expect(documented.get(group.name())!.toSorted(), group.name()).toEqual(names.toSorted());
    } else {
      for (const name of names.length > 0 ? names : [""]) {
        const whole = `pinion ${group.name()} ${name}`.trim();
        const isNamed =
          page.includes(`\`${whole}`) ||
          (name && page.includes(`\`${name}\``)) ||
          documented.has(group.name());
        expect(isNamed || page.includes(`\`${group.name()}\``), whole).toBe(true);
      }
    }
  }
});

/** Variables that are no settings of the server or the command, with their readers or writers. */
const otherVariables: Record<string, string> = {
  PINION_INPUT_FILE: "what the daemon tells a program",
  ...Object.fromEntries(
    [
      "RUN_ID",
      "ATTEMPT",
      "WATCHER",
      "CONVERSATION_ID",
      "WINDOW_START",
      "WINDOW_END",
      "AGENT",
      "AGENT_IDENTITY",
    ]
      .concat(
        "INSTALL_ID",
        "ATTEMPT_MARK",
        "STATE_MARK",
        "SNAPSHOT_IN",
        "SNAPSHOT_OUT",
        "RETRY_AFTER_FILE",
        "TURN_ID",
        "MESSAGE_ID",
        "SUBJECT_RUN_ID",
        "INPUT",
        "WORKSPACE",
      )
      .map((name) => [
        `PINION_${name}`,
        "set by the daemon for a program: clients/ts/src/runner/environment.ts",
      ]),
  ),
  PINION_RUN: "of the recipes in docs/operators.md",
  PINION_DEVICE_TOKEN: "of the recipes in docs/operators.md",
  PINION_AGENT_KIND: "of the example in Python",
  PINION_SLOTS: "of the example in Python",
  PINION_TEST_LOG: "of the tests: test/support/server.ts",
  PINION_TEST_DATABASE_URL: "of the tests: test/support/global-setup.ts",
  PINION_CHAOS_SEED: "of the tests: test/chaos",
  PINION_CHAOS_EVIDENCE: "of the tests: test/chaos",
  PINION_CROWD_SCALE: "of the tests: test/integration/server/hostile",
  PINION_CHROMIUM: "of the tests: test/support/browser.ts",
  PINION_SECRET_NAME: "stands for the variable of a reference secret://NAME",
};

test("every variable that a page names is in the reference, or somebody else's", () => {
  const known = new Set(
    Object.keys({ ...serverSettings.shape, ...commandSettings.shape, ...otherVariables }),
  );
  const unknown = pages.flatMap((page) =>
    [...textOf(page).matchAll(/\bPINION_[A-Z][A-Z_]*[A-Z]\b/g)]
      .filter(([name]) => !known.has(name))
      .map(([name]) => `${page}: ${name}`),
  );
  expect(unknown).toEqual([]);
});

test("what can be typed into a shell is marked as such, so that it is executed", () => {
  const unmarked = pages.flatMap((page) =>
    blocksOf(page)
      .filter(
        ({ language, text }) => language === "" && /^(npx |npm |pinion |buf |docker |kubectl )/m.test(text),
      )
      .map(({ line }) => `${page}:${line}`),
  );
  expect(unmarked).toEqual([]);
});
