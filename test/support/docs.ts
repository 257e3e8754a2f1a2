/**
 * The documentation as data: its pages, their commands, and the place where each command is
 * executed.
 */
import { globSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../", import.meta.url));

/** Every page of the repository for people. */
export const pages = globSync("**/*.md", {
  cwd: root,
  exclude: (path) => ["node_modules", "dist", ".venv"].includes(basename(path)),
}).sort();

export const textOf = (page: string): string => readFileSync(join(root, page), "utf8");

export type Block = {
  page: string;
  /** The position of the first line. */
  line: number;
  /** "sh", "toml", …; empty for indented code or code without a language. */
  language: string;
  text: string;
};

/** The code blocks of a page. */
export function blocksOf(page: string): Block[] {
  const blocks: Block[] = [];
  let fence: Block | undefined;
  for (const [index, line] of textOf(page).split("\n").entries()) {
    const [, language] = /^ *```(.*)$/.exec(line) ?? [];
    if (fence) {
      if (language === undefined) fence.text += `${line}\n`;
      else {
        blocks.push(fence);
        fence = undefined;
      }
    } else if (language !== undefined) {
      fence = { page, line: index + 2, language: language.trim(), text: "" };
    } else if (/^ {4}\S/.test(line)) {
      blocks.push({ page, line: index + 1, language: "", text: `${line.trim()}\n` });
    }
  }
  return blocks;
}

export type DocumentedCommand = { page: string; line: number; command: string };

/**
 * The commands of the pages' shell blocks: one per line, with continuation lines, without the
 * comment.
 */
export function documentedCommands(): DocumentedCommand[] {
  return pages
    .flatMap(blocksOf)
    .filter(({ language }) => ["sh", "bash", "console", "shell"].includes(language))
    .flatMap(({ page, line, text }) => {
      let at = line;
      return text
        .replaceAll(/\\\n\s*/g, "\u0000")
        .split("\n")
        .map((joined) => {
          const found = {
            page,
            line: at,
            command: joined
              .replaceAll("\u0000", "")
              .replace(/(^|\s{2,})#.*$/, "")
              .trim(),
          };
          at += joined.split("\u0000").length;
          return found;
        })
        .filter(({ command }) => command !== "");
    });
}

/**
 * Pages whose commands are read from the page and executed by a separate test, which names the
 * page.
 */
export const executedAsAWhole: Record<string, string> = {
  "docs/operators.md": "test/integration/server/http/buf-curl.slow.test.ts",
  "docs/first-agent.md": "test/e2e/agents.test.ts",
  "docs/recipes.md": "test/e2e/agents.slow.test.ts",
};

/**
 * Commands executed in other places: each with files, and the text in the files that executes the
 * command.
 */
export const executedElsewhere: Record<string, [file: string, text: string][]> = {
  "npm ci && npm start": [
    [".ci/run", "npm ci"],
    ["package.json", '"start": "node src/cli/main.ts up"'],
    ["test/e2e/cli/up.test.ts", "a fresh machine comes up, runs something true, stores it, and stops"],
  ],
  "npm ci && npm test": [
    [".ci/run", "npm ci"],
    [".ci/run", "npm run test:all -- --retry"],
    ["package.json", '"test": "vitest run"'],
  ],
  "npm ci": [[".ci/run", "npm ci"]],
  "npm test": [
    [".ci/run", "npm run test:all -- --retry"],
    ["package.json", '"test": "vitest run"'],
  ],
  "npm run test:all": [[".ci/run", "npm run test:all -- --retry"]],
  "npm run check": [[".ci/run", "npm run check"]],
  "npm run build:executables": [["test/support/built-daemon.ts", "scripts/build-executables.ts"]],
  "npm run build": [["test/e2e/image.slow.test.ts", "scripts/build-command.ts"]],
  "npm run generate": [["scripts/check-drift.ts", "generate"]],
  "npx vitest run test/integration/server/device/main-job.test.ts": [
    ["package.json", '"test": "vitest run"'],
    ["test/integration/server/device/main-job.test.ts", "test("],
  ],
  "npm run chaos -- --seed 1 --minutes 5": [["test/chaos/short.slow.test.ts", "seed"]],
  "npm run chaos -- --seed 1 --minutes 30 --devices 200 --replicas 3 --hosts 4 --json result.json --evidence broken.json":
    [["test/chaos/short.slow.test.ts", "seed"]],
  "pinion migrate": [["test/integration/server/upgrade.test.ts", "migrat"]],
  'kill -TERM "$pid"': [["test/e2e/backup.slow.test.ts", "SIGTERM"]],
  "tar -C .pinion -chpf pinion-backup.tar .": [["test/e2e/backup.slow.test.ts", '"-chpf"']],
  "mkdir -m 711 restored": [["test/e2e/backup.slow.test.ts", "0o711"]],
  "tar -C restored -xpf pinion-backup.tar": [["test/e2e/backup.slow.test.ts", '"-xpf"']],
  "pinion serve --data restored": [["test/e2e/backup.slow.test.ts", '"serve"']],
  "pinion devices label mac-7 gpu team=web": [
    ["test/integration/cli/json.test.ts", "devices label box gpu team=web"],
  ],
  "pinion devices list --with gpu has:codex": [
    ["test/integration/cli/json.test.ts", "devices list --with gpu"],
  ],
  "pinion runs cancel --watcher hourly --status pending --dry-run": [
    ["test/integration/cli/json.test.ts", "--status pending --dry-run"],
  ],
  "pinion runs retry --status failed --since 2h --yes": [
    ["test/integration/cli/json.test.ts", "runs retry --status failed --since 2h --yes"],
  ],
  // The start asks Telegram, or a server in its place.
  "pinion platforms upsert team-chat --agent pinion-default --kind telegram --secret-env bot_token=BOT_TOKEN --config allow_from=123456789":
    [["test/integration/cli/agents.test.ts", '["platforms", "upsert", "chat", "--agent", "pinion-default"']],
  "npm pack": [["test/e2e/install/package.slow.test.ts", '"pack"']],
  "npm install -g ./pinion-cli-0.1.0.tgz": [["test/e2e/install/package.slow.test.ts", '"--global"']],
  "pinion up": [["test/e2e/install/package.slow.test.ts", "brings everything up from the package alone"]],
  "npm install @pinion/client": [["test/e2e/client/package.slow.test.ts", "install"]],
  "pinion device enroll --anew --url https://pinion.example.org --join-code ABCD-EFGH-JKMN-PQRS": [
    ["test/integration/server/device/duplicate-machine.test.ts", '"--anew"'],
  ],
  "pinion device install": [
    ["test/unit/cli/device-install.test.ts", "install writes the unit, enables and starts it"],
  ],
  "pinion device status": [
    ["test/unit/cli/device-install.test.ts", "status tells a service that is not installed"],
  ],
  "pinion device uninstall": [["test/unit/cli/device-install.test.ts", "uninstall stops the service"]],
  "pinion device conformance -- ./my-daemon": [
    ["test/e2e/cli/conformance.slow.test.ts", "what fails is told with what was expected, what was seen"],
  ],
  "pinion device conformance -- pinion device run --config sh.toml": [
    ["test/e2e/cli/conformance.slow.test.ts", "the daemon of this repository keeps every promise"],
  ],
  // The daemons' own tests prepare them in these steps, and skip them with a notice if Python or Go
  // is missing.
  "python3 -m venv .venv": [["test/support/toolchains.ts", '"-m", "venv"']],
  ".venv/bin/pip install -r requirements.txt": [["test/support/toolchains.ts", "requirements.txt"]],
  "mkdir -p gen": [["test/support/toolchains.ts", "grpc_tools.protoc"]],
  ".venv/bin/python -m grpc_tools.protoc -I ../../proto --python_out=gen --grpc_python_out=gen $(cd ../../proto && ls pinion/v1/*.proto buf/validate/*.proto)":
    [["test/support/toolchains.ts", "grpc_tools.protoc"]],
  "PYTHONPATH=gen PINION_STATE_DIR=./state .venv/bin/python daemon.py claude -p": [
    ["test/e2e/examples/daemons.slow.test.ts", "completes a run, with its output"],
  ],
  "buf generate ../../proto --path ../../proto/pinion/v1 --path ../../proto/buf/validate": [
    ["test/support/toolchains.ts", "generate"],
  ],
  "go build -o daemon .": [["test/support/toolchains.ts", "build"]],
  "PINION_STATE_DIR=./state ./daemon claude -p": [
    ["test/e2e/examples/daemons.slow.test.ts", "completes a run, with its output"],
  ],
};

/** Commands not executed by any test, each with the reason. */
export const notExecutable: Record<string, string> = {
  "PGPASSWORD=$(cat .pinion/postgres.password) pg_dump -Fc -h 127.0.0.1 -p $(cat .pinion/postgres.port) -U pinion pinion > pinion.dump":
    "it needs PostgreSQL's own pg_dump of the same major version, which is not among the packages",
  "npm run bench -- lifecycle": "it measures for minutes, and installs what Pinion is compared with",
  "npm run bench -- lifecycle --smoke": "it installs what Pinion is compared with",
  "npm run bench -- latency --json latency.json": "it measures for minutes",
  "npm run format":
    "it rewrites the checkout; `npm run check` asks the same tools whether there is anything to rewrite",
};
