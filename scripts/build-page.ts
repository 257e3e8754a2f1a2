/**
 * Builds the web page from web/ into src/server/http/page; the committed files are served
 * unchanged.
 */
import { buildPage, pageDir, writePage } from "./lib/page.ts";

const files = await buildPage();
await writePage(files);
for (const { path, bytes, compressedBytes } of files) {
  console.log(`${path.padEnd(24)} ${kib(bytes.length)}, ${kib(compressedBytes)} compressed`);
}
console.log(`written to ${pageDir}`);

function kib(bytes: number): string {
  return `${(bytes / 1024).toFixed(1)} KiB`;
}
