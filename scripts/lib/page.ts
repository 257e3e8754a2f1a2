/**
 * Builds the web page from web/. The same sources give the same bytes, so that the committed files
 * can be checked.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { create, fromBinary, isMessage, type Message, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { build, type Plugin } from "esbuild";
import { licenses } from "./licenses.ts";
import { root } from "./proto.ts";

export type PageFile = { path: string; bytes: Uint8Array; compressedBytes: number };

/** Relative to the repository. */
export const pageDir = "src/server/http/page";

/** Browsers since the spring of 2024. */
const target = ["chrome117", "firefox124", "safari17.4"];

/**
 * The server checks the rules of the fields. Their descriptors, larger than all others together,
 * stay out of the bundle; the generated code needs an empty module of the same name.
 */
const withoutRules: Plugin = {
  name: "without-rules",
  setup(plugins) {
    const file = create(FileDescriptorProtoSchema, { name: "buf/validate/validate.proto", syntax: "proto2" });
    const bytes = Buffer.from(toBinary(FileDescriptorProtoSchema, file)).toString("base64");
    plugins.onLoad({ filter: /[\\/]buf[\\/]validate[\\/]validate_pb\.js$/ }, () => ({
      contents: `
        import { fileDesc } from "@bufbuild/protobuf/codegenv2";
        export const file_buf_validate_validate = fileDesc("${bytes}");`,
      loader: "js",
      resolveDir: root,
    }));
  },
};

/** Options of extensions, such as the rules of the fields, have numbers from 1000. */
const extensionFrom = 1_000;

/**
 * The descriptors of our API without the rules of the fields, and as text in place of base64, in
 * which a compressor finds no repeated name: two thirds of the compressed size are saved.
 */
const smallDescriptors: Plugin = {
  name: "small-descriptors",
  setup(plugins) {
    plugins.onLoad({ filter: /[\\/]gen[\\/]pinion[\\/]v1[\\/]\w+_pb\.js$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      const contents = text.replace(/fileDesc\("([\w+/=]+)"/g, (_, base64: string) => {
        const file = fromBinary(FileDescriptorProtoSchema, Buffer.from(base64, "base64"));
        dropRules(file);
        const bytes = Buffer.from(toBinary(FileDescriptorProtoSchema, file));
        return `fileDesc(btoa(${JSON.stringify(bytes.toString("latin1"))})`;
      });
      return { contents, loader: "js" };
    });
  },
};

/** Removes the options of extensions from a descriptor and from all descriptors in it. */
function dropRules(message: Message): void {
  if (message.$unknown) message.$unknown = message.$unknown.filter(({ no }) => no < extensionFrom);
  for (const value of Object.values(message).flat()) if (isMessage(value)) dropRules(value);
  if ("options" in message && isMessage(message.options) && isEmpty(message.options)) delete message.options;
}

function isEmpty(message: Message): boolean {
  const { $typeName, $unknown = [], ...fields } = message;
  return $unknown.length === 0 && Object.values(fields).flat().length === 0;
}

export async function buildPage(): Promise<PageFile[]> {
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: { app: "web/src/main.tsx", style: "web/src/style.css" },
    bundle: true,
    minify: true,
    format: "esm",
    target,
    charset: "utf8",
    legalComments: "none",
    tsconfig: "web/tsconfig.json",
    plugins: [withoutRules, smallDescriptors],
    outdir: pageDir,
    // Code for only some views goes into separate files, which these views load when they are
    // shown.
    splitting: true,
    entryNames: "assets/[name]-[hash]",
    chunkNames: "assets/[name]-[hash]",
    metafile: true,
    write: false,
    logLevel: "warning",
  });
  const made = outputFiles.map(({ path, contents }) => fileOf(relative(join(root, pageDir), path), contents));
  const entry = (entryPoint: string) => {
    const found = Object.entries(metafile.outputs).find(([, output]) => output.entryPoint === entryPoint);
    if (!found) throw new Error(`esbuild made nothing of ${entryPoint}`);
    return relative(pageDir, found[0]);
  };
  const script = entry("web/src/main.tsx");
  const style = entry("web/src/style.css");
  const icon = hashed("icon", ".svg", await readFile(join(root, "web/icon.svg")));
  const template = await readFile(join(root, "web/index.html"), "utf8");
  const html = template
    .replace("{{script}}", script)
    .replace("{{style}}", style)
    .replace("{{icon}}", icon.path);
  return [
    fileOf("index.html", Buffer.from(html)),
    ...made,
    icon,
    fileOf("assets/licenses.txt", Buffer.from(await licenses(metafile))),
  ];
}

/** Replaces the files of the page's folder. */
export async function writePage(files: readonly PageFile[]): Promise<void> {
  const dir = join(root, pageDir);
  await rm(dir, { recursive: true, force: true });
  await mkdir(join(dir, "assets"), { recursive: true });
  await Promise.all(files.map(({ path, bytes }) => writeFile(join(dir, path), bytes)));
}

/** A file whose name contains its digest, so browsers may cache the file for ever. */
function hashed(name: string, extension: string, bytes: Uint8Array): PageFile {
  const hash = createHash("sha256").update(bytes).digest("hex").slice(0, 10);
  return fileOf(`assets/${name}-${hash}${extension}`, bytes);
}

function fileOf(path: string, bytes: Uint8Array): PageFile {
  return { path, bytes, compressedBytes: brotliCompressSync(bytes).length };
}
