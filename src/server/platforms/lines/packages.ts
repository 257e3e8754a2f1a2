/**
 * The packages of the Chat SDK. The ones of Telegram and Slack come with the command; a kind whose
 * package is not installed is off.
 */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import type * as Sdk from "chat";

export type Packages = {
  /** Loads the SDK and a kind's adapter. Rejects with an error that names the missing package. */
  load(kind: string, name: string): Promise<{ sdk: typeof Sdk; adapter: Record<string, unknown> }>;
  /** Whether the package is installed, without loading it. */
  has(name: string): boolean;
};

const own: Readonly<Record<string, () => Promise<unknown>>> = {
  "@chat-adapter/telegram": () => import("@chat-adapter/telegram"),
  "@chat-adapter/slack": () => import("@chat-adapter/slack"),
};

/**
 * `folder`: a folder with further packages in its node_modules; otherwise the folders above the
 * command are looked through, as Node does.
 */
export function createPackages(folder: string | undefined): Packages {
  const folders = folder === undefined ? above(dirname(process.argv[1] ?? ".")) : [resolve(folder)];

  function entryOf(name: string): string | undefined {
    for (const one of folders) {
      const place = join(one, "node_modules", name);
      const manifest = join(place, "package.json");
      if (!existsSync(manifest)) continue;
      const { exports, main } = JSON.parse(readFileSync(manifest, "utf8")) as {
        exports?: { "."?: { import?: string } };
        main?: string;
      };
      return join(place, exports?.["."]?.import ?? main ?? "index.js");
    }
    return undefined;
  }

  return {
    has: (name) => Object.hasOwn(own, name) || entryOf(name) !== undefined,
    async load(kind, name) {
      const load = Object.hasOwn(own, name) ? own[name] : undefined;
      if (load) {
        const [sdk, adapter] = await Promise.all([import("chat"), load()]);
        return { sdk, adapter: adapter as Record<string, unknown> };
      }
      const entry = entryOf(name);
      if (entry === undefined) {
        throw new Error(
          `the kind "${kind}" needs the package ${name}, which is not installed on this server: ` +
            `npm install ${name} chat${folder === undefined ? "" : ` in ${folder}`}, and restart it`,
        );
      }
      // The adapter's own SDK: two copies would not know each other's messages. `require` also
      // loads ES modules, and in a single executable it alone reads files.
      const require = createRequire(entry);
      const sdkEntry = entryOf("chat");
      if (sdkEntry === undefined)
        throw new Error(`the package chat is missing beside ${name}: npm install chat`);
      return { sdk: require(sdkEntry) as typeof Sdk, adapter: require(entry) as Record<string, unknown> };
    },
  };
}

/** The folder and all folders above it. */
function above(folder: string): string[] {
  const found: string[] = [];
  for (let at = resolve(folder); ; at = dirname(at)) {
    found.push(at);
    if (dirname(at) === at) return found;
  }
}
