/**
 * The bill of materials of a build, as CycloneDX 1.6: the packages really included, according to
 * the bundler's metafile.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Metafile } from "esbuild";
import type { Build } from "../../src/build.ts";
import { root } from "./proto.ts";

type Component = { name: string; version: string; license?: string | undefined; sha512?: string | undefined };

/** Packages of a bundle, by the paths of their files. */
function packagesOf(metafile: Metafile): string[] {
  const names = Object.keys(metafile.inputs).flatMap(
    (path) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? [],
  );
  return [...new Set(names)].sort();
}

/** `more` names additions to the bundle: Node itself, PostgreSQL's binaries. */
export async function bomOf(stamp: Build, metafile: Metafile, more: readonly string[]): Promise<object> {
  const lock = JSON.parse(await readFile(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { version?: string; integrity?: string }>;
  };
  const components = await Promise.all(
    [...packagesOf(metafile), ...more].map(async (name): Promise<Component> => {
      const locked = lock.packages[`node_modules/${name}`];
      const text = await readFile(join(root, "node_modules", name, "package.json"), "utf8").catch(() => "{}");
      const manifest = JSON.parse(text) as { version?: string; license?: string };
      const [, digest] = /^sha512-(.+)$/.exec(locked?.integrity ?? "") ?? [];
      return {
        name,
        version: locked?.version ?? manifest.version ?? "",
        license: manifest.license,
        sha512: digest && Buffer.from(digest, "base64").toString("hex"),
      };
    }),
  );
  return {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      component: {
        type: "application",
        "bom-ref": stamp.program,
        name: stamp.program,
        version: stamp.version,
        properties: [{ name: "pinion:commit", value: stamp.commit }],
      },
    },
    components: components.map(({ name, version, license, sha512 }) => ({
      type: "library",
      "bom-ref": `${name}@${version}`,
      name,
      version,
      purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
      ...(license ? { licenses: [{ expression: license }] } : {}),
      ...(sha512 ? { hashes: [{ alg: "SHA-512", content: sha512 }] } : {}),
    })),
    dependencies: [
      { ref: stamp.program, dependsOn: components.map(({ name, version }) => `${name}@${version}`) },
    ],
  };
}
