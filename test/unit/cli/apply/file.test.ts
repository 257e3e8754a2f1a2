import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { desiredOf } from "../../../../src/cli/apply/file/desired.ts";
import { parseFile } from "../../../../src/cli/apply/file/file.ts";
import { jsonSchema } from "../../../../src/cli/apply/file/shape.ts";

const read = (text: string, env: Record<string, string> = {}) => {
  const parsed = parseFile(text, { file: "pinion.toml", env });
  const desired = desiredOf(parsed);
  if (parsed.missing.length > 0) throw parsed.fail(parsed.missing);
  return desired;
};

/** The message for an invalid file. */
function refusal(text: string, env: Record<string, string> = {}): string {
  try {
    read(text, env);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("the file was taken");
}

const root = new URL("../../../../", import.meta.url);
const example = readFileSync(new URL("pinion.example.toml", root), "utf8");

test("the example is a good file, and it shows every key there is", () => {
  const { agents, platforms, watchers } = read(example, { ADA_TELEGRAM_BOT_TOKEN: "x" });
  expect(agents.map(({ id }) => id)).toEqual(["ada"]);
  expect(platforms.map(({ id, secrets }) => [id, Object.keys(secrets)])).toEqual([
    ["ada-telegram", ["bot_token"]],
  ]);
  // The commented-out parts, which need more than one variable, are valid too.
  const whole = read(example.replaceAll(/^# (?=\[\[|[a-z_]+ = )/gm, ""), { ADA_TELEGRAM_BOT_TOKEN: "x" });
  expect(whole.platforms.map(({ id, secrets }) => [id, Object.keys(secrets)])).toEqual([
    ["ada-telegram", ["bot_token"]],
    ["ada-slack", ["bot_token", "signing_secret"]],
  ]);
  expect(watchers.map(({ slug }) => slug)).toEqual(["repo-digest", "on-demand", "risks"]);
  expect(watchers[0]!.fields.prompt).toContain("written like $5.");
  const keys = [...jsonSchema().matchAll(/^ {2,}"([a-z_]+)": \{$/gm)].map(([, key]) => key!);
  const words = new Set(["agents", "properties", "items", "additionalProperties", "installed_providers"]);
  for (const key of keys.filter((name) => !words.has(name) && name.includes("_")))
    expect(example).toContain(key);
});

test("the schema for editors is the one of this version: pinion apply --print-schema > docs/pinion.schema.json", () => {
  expect(readFileSync(new URL("docs/pinion.schema.json", root), "utf8")).toBe(jsonSchema());
});

test("a webhook's address is a secret, and a kind that nobody knows is the server's to refuse", () => {
  const text = (kind: string) =>
    `[[agents.a.platforms]]\nid = "p"\nkind = "${kind}"\nconfig.url = "https://hooks.example/x"`;
  expect(read(text("webhook")).platforms).toMatchObject([
    { config: {}, secrets: { url: "https://hooks.example/x" } },
  ]);
  expect(read(text("constructor")).platforms).toMatchObject([{ kind: "constructor", secrets: {} }]);
});

test("a setting that holds a URL with a password is refused with its line, and the password is not told", () => {
  const text = (value: string) =>
    `[[agents.a.platforms]]\nid = "p"\nkind = "telegram"\nconfig = { bot_token = "1", proxy = "${value}" }`;
  const message = refusal(text("socks5://me:hunter2@proxy.example"));
  expect(message).toMatch(/^pinion\.toml:4: agents\.a\.platforms\[1\]\.config\.proxy: .*URL with a password/);
  expect(message).not.toContain("hunter2");
  // A value from a variable is stored as a secret.
  expect(read(text("$PROXY"), { PROXY: "socks5://me:hunter2@p" }).platforms[0]!.secrets).toHaveProperty(
    "proxy",
  );
  expect(read(text("https://me@proxy.example:80/a:b@c")).platforms).toHaveLength(1);
});

test("an empty file asks for nothing", () => {
  expect(read("")).toEqual({
    agents: [],
    platforms: [],
    watchers: [],
    destinations: [],
    hooks: [],
    devices: [],
  });
});

test("malformed TOML is refused with its line", () => {
  expect(refusal('[agents.ada]\nname = "x')).toMatch(/^pinion\.toml:2: /);
  expect(refusal('[agents.ada]\nname = "a"\nname = "b"')).toMatch(/^pinion\.toml:3: /);
  expect(refusal("[agents.ada]\n[agents.ada]")).toMatch(/^pinion\.toml:2: /);
});

test("unknown keys are refused with their lines, wherever they stand, and the near one is named", () => {
  expect(
    refusal(`
[agents.ada]
model = "m"
guardrail = []
mcp_servers = [
  { name = "a", url = "b" },
  { name = "c", url = "d", tokn = "e" },
]
[[agents.ada.watchers]]
slug = "a"
prompt = """
promt = 1
"""
[[agents.ada.watchers]]
slug = "b"
prompt = "x"
time_zon = "UTC"
egress_config = 1
[agent]
`),
  ).toBe(`5 problems in pinion.toml
  pinion.toml:4: agents.ada.guardrail: unknown key; did you mean "guardrails"?
  pinion.toml:7: agents.ada.mcp_servers[2].tokn: unknown key
  pinion.toml:17: agents.ada.watchers[2].time_zon: unknown key; did you mean "time_zone"?
  pinion.toml:18: agents.ada.watchers[2].egress_config: unknown key
  pinion.toml:19: agent: unknown key; did you mean "agents"?`);
});

test("the key that platforms had before is refused with its new name", () => {
  expect(refusal("[agents.ada]\n\n[[agents.ada.connections]]\nid = 'x'")).toBe(
    'pinion.toml:3: agents.ada.connections: is the old name of "platforms"; write [[agents.ada.platforms]]',
  );
  expect(refusal("[[connections]]\nid = 'x'")).toContain('is the old name of "platforms"');
});

test("empty ids, look-alikes and capitals are refused by name", () => {
  expect(refusal('[agents.""]')).toContain("an id must not be empty");
  // The second letter is Cyrillic.
  expect(refusal('[agents."p\u0456nion"]')).toContain('"pіnion" holds "і" (U+0456), which is not one of a-z');
  expect(refusal("[agents.Ada]")).toContain('"Ada" is no id');
  expect(refusal("[[agents.a.watchers]]\nslug = 'а'\nprompt = 'x'")).toContain("U+0430");
  expect(
    refusal("[[agents.a.watchers]]\nslug = '0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e'\nprompt = 'x'"),
  ).toContain("must not look like an id");
});

test("ids that stand twice are refused at the second place, also across agents", () => {
  const watcher = (agent: string) => `[[agents.${agent}.watchers]]\nslug = "w"\nprompt = "x"\n`;
  expect(refusal(watcher("a") + watcher("b"))).toBe(
    'pinion.toml:5: agents.b.watchers[1].slug: there is a watcher "w" in this file already',
  );
  const platform = '[[agents.a.platforms]]\nid = "p"\nkind = "telegram"\n';
  expect(refusal(platform + platform)).toBe(
    'pinion.toml:5: agents.a.platforms[2].id: there is a platform "p" in this file already',
  );
});

test("a prompt is taken as it is, unless its watcher substitutes", () => {
  const text = (more: string) =>
    `[[agents.a.watchers]]\nslug = "w"\nprompt = "check that $GITHUB_TOKEN is not committed, for $$5"\n${more}`;
  const promptOf = (more: string) => read(text(more), { GITHUB_TOKEN: "hush" }).watchers[0]!.fields.prompt;
  expect(promptOf("")).toBe("check that $GITHUB_TOKEN is not committed, for $$5");
  expect(promptOf("substitute = false")).toBe("check that $GITHUB_TOKEN is not committed, for $$5");
  expect(promptOf("substitute = true")).toBe("check that hush is not committed, for $5");
});

test("a prompt may stand in a file beside the description", () => {
  const folder = mkdtempSync(join(tmpdir(), "prompt-"));
  writeFileSync(join(folder, "digest.md"), "Summarise $HOME.\n");
  const of = (more: string) => {
    const parsed = parseFile(`[[agents.a.watchers]]\nslug = "w"\n${more}`, {
      file: join(folder, "p.toml"),
      env: {},
    });
    return desiredOf(parsed).watchers[0]!.fields.prompt;
  };
  expect(of('prompt_file = "digest.md"')).toBe("Summarise $HOME.\n");
  expect(() => of('prompt_file = "gone.md"')).toThrow(/prompt_file: there is no file .*gone\.md/);
  expect(() => of('prompt = "x"\nprompt_file = "digest.md"')).toThrow(/excludes "prompt"/);
  expect(() => of("")).toThrow(/prompt: is missing/);
});

test("a schedule is cron, at or every", () => {
  const scheduleOf = (more: string) =>
    read(`[[agents.a.watchers]]\nslug = "w"\nprompt = "x"\n${more}`).watchers[0]!.fields.schedule;
  expect(scheduleOf('at = "2026-12-01T09:00"')).toBe("@at 2026-12-01T09:00");
  expect(scheduleOf('every = "90m"')).toBe("@every 90m");
  expect(scheduleOf('every = "90m"\nanchor = "2026-12-01T09:00"')).toBe("@every 90m from 2026-12-01T09:00");
  expect(scheduleOf('schedule = "@every 90m"')).toBe("@every 90m");
});

test.each([
  ["timeout = 30", 'watchers[1].timeout: must be a string, such as "30s", and is a number'],
  ["max_attempts = '3'", "watchers[1].max_attempts: must be a number, and is a string"],
  ["questions = 'no'", "watchers[1].questions: must be a table, and is a string"],
  ["schedule = ['0 9 * * *']", "watchers[1].schedule: must be a string, and is a list"],
  ["schedule = '2026-12-01T09:00'", 'write at = "2026-12-01T09:00"'],
  ["at = '2026-02-30T09:00'", "watchers[1].at: "],
  ["every = 'often'", "watchers[1].every: "],
  ["every = '1h'\nschedule = '@daily'", 'every: excludes "schedule"'],
  ["anchor = '2026-12-01T09:00'", 'anchor: belongs to "every"'],
  ["time_zone = 'BST'", 'did you mean "Europe/London"'],
  ["schedule = '0 0 30 2 *'", "never fires"],
  ["schedule = 'daily'", "is not a cron expression"],
  ["time_zone = 'Europe/Berlinn'", "does not exist"],
  ["timeout = 'soon'", "is no length of time"],
  ["timeout = '400d'", "timeout"],
  ["max_attempts = 21", "max_attempts"],
  ["overlap = 'sometimes'", "overlap"],
  ["extraction_schema = '[]'", "holds no JSON object"],
  ["name = ''", "must not be empty"],
  ["name = 1", "name"],
])("a watcher with %s is refused on its line", (line, message) => {
  const text = refusal(`[[agents.a.watchers]]\nslug = "w"\nprompt = "x"\n${line}`);
  expect(text).toMatch(/^pinion\.toml:4: /);
  expect(text).toContain(message);
});

test("every missing variable is named at once, with its line, along with other problems", () => {
  const text = `
[agents.ada]
identity = "$ONE"
model = "\${TWO}"
name = "$EMPTY"
unknown = "$THREE"
[agents.ada.egress_config]
allowed_hosts = ["$ONE"]
[[agents.ada.platforms]]
id = "p"
kind = "telegram"
config.bot_token = "\${}"
`;
  expect(refusal(text, { EMPTY: "" })).toBe(`7 problems in pinion.toml
  pinion.toml:3: agents.ada.identity: $ONE is not set
  pinion.toml:4: agents.ada.model: $TWO is not set
  pinion.toml:5: agents.ada.name: $EMPTY is set to nothing
  pinion.toml:6: agents.ada.unknown: $THREE is not set
  pinion.toml:6: agents.ada.unknown: unknown key
  pinion.toml:8: agents.ada.egress_config.allowed_hosts[1]: $ONE is not set
  pinion.toml:12: agents.ada.platforms[1].config.bot_token: a reference without a name; $$ is a dollar sign`);
});

test("secrets are told from settings by the kind, and else by holding a variable", () => {
  const { platforms } = read(
    `
[[agents.a.platforms]]
id = "d"
kind = "discord"
config = { bot_token = "plain", application_id = "$APP", other = "$X", port = 8443, quiet = true }
`,
    { APP: "1", X: "y" },
  );
  expect(platforms[0]).toMatchObject({
    config: { application_id: "1", port: "8443", quiet: "true" },
    secrets: { bot_token: "plain", other: "y" },
  });
});

test("no variable is looked for in a JSON schema", () => {
  const { watchers } = read(
    '[[agents.a.watchers]]\nslug = "w"\nprompt = "x"\nextraction_schema = { "$ref" = "#/$defs/a" }',
  );
  expect(watchers[0]!.fields.extraction_schema).toEqual({ $ref: "#/$defs/a" });
});

test("keys that would reach into the program are refused", () => {
  expect(refusal("[agents.__proto__]\nname = 'x'")).toMatch(/^pinion\.toml:1: /);
  expect(refusal("[agents]\nconstructor = {}")).toMatch(/^pinion\.toml:2: /);
});

test("10 000 platforms are read within seconds", () => {
  const text = Array.from(
    { length: 10_000 },
    (_, index) => `[[agents.a.platforms]]\nid = "p-${index}"\nkind = "telegram"\nconfig.bot_token = "$T"\n`,
  ).join("");
  expect(read(text, { T: "t" }).platforms).toHaveLength(10_000);
  expect(refusal(`${text}[[agents.a.platforms]]\nid = "p-7"\nkind = "telegram"`, { T: "t" })).toMatch(
    /^pinion\.toml:40002: /,
  );
});

test("all mistakes of a file are told at once, whoever finds them", () => {
  const text = `
[agents.ada]
guardrail = ["x"]
[[agents.ada.watchers]]
slug = "w"
prompt = "x"
timeout = 30
schedule = "0 9 32 * *"
[[agents.ada.watchers]]
slug = "v"
prompt = "x"
jitter = "2h"
catchup_window = "1s"
time_zone = "BST"
`;
  const told = refusal(text);
  expect(told).toContain('agents.ada.guardrail: unknown key; did you mean "guardrails"?');
  expect(told).toContain("watchers[1].timeout: must be a string");
  expect(told).toContain("there is no day 32");
  expect(told).toContain("watchers[2].jitter");
  expect(told).toContain("watchers[2].catchup_window");
  expect(told).toContain("Europe/London");
});

test("a mistake that leaves a required key empty hides no other mistake", () => {
  const text = `
[agents.ada]
guardrails = ["x", 1]
platforms = [{ kind = "telegram" }]
[[agents.ada.watchers]]
prompt = "no slug"
schedule = "0 9 32 * *"
[[agents.ada.watchers]]
slug = "Not A Slug"
prompt = "x"
time_zone = "BST"
[[agents.ada.watchers]]
slug = "also"
timeout = "$NOT_SET"
`;
  const told = refusal(text);
  expect(told).toContain("agents.ada.guardrails[2]: must be a string");
  expect(told).toContain("agents.ada.platforms[1].id: is missing");
  expect(told).toContain("agents.ada.watchers[1].slug: is missing");
  expect(told).toContain("there is no day 32");
  expect(told).toContain('"Not A Slug" is no id');
  expect(told).toContain("Europe/London");
  expect(told).toContain("agents.ada.watchers[3].timeout: $NOT_SET is not set");
  expect(told).toMatch(/agents\.ada\.watchers\[3\].*prompt/);
  expect(told).toMatch(/^8 problems/);
});
