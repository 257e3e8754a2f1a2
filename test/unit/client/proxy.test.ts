import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ProxyError, type ProxySetting, proxyFor } from "../../../clients/ts/src/index.ts";

const names = ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy"];
beforeEach(() => {
  for (const name of names) {
    vi.stubEnv(name, undefined);
    vi.stubEnv(name.toUpperCase(), undefined);
  }
});
afterEach(() => vi.unstubAllEnvs());

const shown = (url: string, setting?: ProxySetting) => proxyFor(url, setting)?.shown;
const p = "http://proxy:3128";

type Row = [environment: Record<string, string>, url: string, proxy: string | undefined];
const rows: Row[] = [
  [{}, "http://pinion.example.org", undefined],
  // The variable that applies to a URL.
  [{ http_proxy: p }, "http://pinion.example.org", p],
  [{ HTTP_PROXY: p }, "http://pinion.example.org", p],
  [{ https_proxy: p }, "https://pinion.example.org", p],
  [{ HTTPS_PROXY: p }, "https://pinion.example.org", p],
  [{ https_proxy: p }, "http://pinion.example.org", undefined],
  [{ http_proxy: p }, "https://pinion.example.org", undefined],
  [{ all_proxy: p }, "https://pinion.example.org", p],
  [{ ALL_PROXY: p }, "http://pinion.example.org", p],
  [{ ALL_PROXY: "http://other:1", HTTPS_PROXY: p }, "https://pinion.example.org", p],
  [{ https_proxy: p, HTTPS_PROXY: "http://other:1" }, "https://pinion.example.org", p],
  [{ https_proxy: "", HTTPS_PROXY: p }, "https://pinion.example.org", p],
  [{ HTTPS_PROXY: "" }, "https://pinion.example.org", undefined],
  [{ grpc_proxy: p, GRPC_PROXY: p }, "https://pinion.example.org", undefined],
  // The forms of a proxy's address.
  [{ HTTPS_PROXY: "proxy:3128" }, "https://pinion.example.org", p],
  [{ HTTP_PROXY: "proxy:3128" }, "http://pinion.example.org", p],
  [{ HTTPS_PROXY: "10.1.2.3:3128" }, "https://pinion.example.org", "http://10.1.2.3:3128"],
  [{ HTTPS_PROXY: "proxy" }, "https://pinion.example.org", "http://proxy:80"],
  [{ HTTPS_PROXY: "http://proxy:80/" }, "https://pinion.example.org", "http://proxy:80"],
  [{ HTTPS_PROXY: "https://proxy" }, "https://pinion.example.org", "https://proxy:443"],
  [{ HTTPS_PROXY: "https://proxy:80" }, "https://pinion.example.org", "https://proxy:80"],
  [{ HTTPS_PROXY: "HTTP://Proxy:3128/" }, "https://pinion.example.org", p],
  [{ HTTPS_PROXY: " http://proxy:3128 " }, "https://pinion.example.org", p],
  [{ HTTPS_PROXY: "http://[fd00::1]:3128" }, "https://pinion.example.org", "http://[fd00::1]:3128"],
  [{ HTTPS_PROXY: "http://me:s%40cret@proxy:3128" }, "https://pinion.example.org", p],
  [{ HTTPS_PROXY: "me:secret@proxy:3128" }, "https://pinion.example.org", p],
  [{ ALL_PROXY: "socks5h://proxy:1080" }, "https://pinion.example.org", "socks5://proxy:1080"],
  [{ ALL_PROXY: "socks5://proxy" }, "http://pinion.example.org", "socks5://proxy:1080"],
  // Loopback is never proxied because of a variable.
  [{ http_proxy: p }, "http://localhost:7420", undefined],
  [{ http_proxy: p }, "http://127.0.0.1:7420", undefined],
  [{ http_proxy: p }, "http://127.8.9.10:7420", undefined],
  [{ http_proxy: p }, "http://[::1]:7420", undefined],
  [{ http_proxy: p }, "http://[::ffff:127.0.0.1]:7420", undefined],
  [{ HTTP_PROXY: p, NO_PROXY: "example.org" }, "http://localhost:7420", undefined],
  [{ all_proxy: p }, "http://pinion.localhost:7420", undefined],
  [{ all_proxy: p }, "http://0.0.0.0:7420", undefined],
  [{ http_proxy: p }, "http://localhost.example.org:7420", p],
];
const listed: [list: string, url: string, isProxied: boolean][] = [
  ["pinion.example.org", "https://pinion.example.org", false],
  ["example.org", "https://pinion.example.org", false],
  [".example.org", "https://pinion.example.org", false],
  [".example.org", "https://example.org", false],
  ["*.example.org", "https://pinion.example.org", false],
  ["ample.org", "https://pinion.example.org", true],
  ["PINION.Example.ORG", "https://pinion.example.org", false],
  ["example.org", "https://pinion.example.org.", false],
  ["*", "https://pinion.example.org", false],
  ["a.test, *", "https://pinion.example.org", false],
  ["a.test, pinion.example.org", "https://pinion.example.org", false],
  [" a.test   pinion.example.org ", "https://pinion.example.org", false],
  ["a.test\tpinion.example.org", "https://pinion.example.org", false],
  ["a.test,", "https://pinion.example.org", true],
  [",", "https://pinion.example.org", true],
  [",,a.test,,", "https://pinion.example.org", true],
  [".", "https://pinion.example.org", true],
  ["pinion.example.org:443", "https://pinion.example.org", false],
  ["pinion.example.org:7420", "https://pinion.example.org", true],
  ["pinion.example.org:7420", "https://pinion.example.org:7420", false],
  ["*:7420", "https://pinion.example.org:7420", false],
  ["https://pinion.example.org", "https://pinion.example.org", false],
  ["10.0.0.0/8", "https://10.1.2.3", false],
  ["10.0.0.0/8", "https://11.1.2.3", true],
  ["192.168.0.0/33", "https://192.168.0.1", true],
  ["10.1.2.3", "https://10.1.2.3", false],
  ["10.1.2.3", "https://10.1.2.30", true],
  ["10.1.2.3:443", "https://10.1.2.3", false],
  ["fd00::/8", "https://[fd12::1]", false],
  ["fd00::1", "https://[fd00:0:0::1]", false],
  ["[fd00::1]", "https://[fd00::1]", false],
  ["[fd00::1]:443", "https://[fd00::1]", false],
  ["[fd00::1]:7420", "https://[fd00::1]", true],
  ["localhost,127.0.0.1,::1", "https://pinion.example.org", true],
];
for (const [list, url, isProxied] of listed) {
  rows.push([{ HTTPS_PROXY: p, NO_PROXY: list }, url, isProxied ? p : undefined]);
  rows.push([{ ALL_PROXY: p, no_proxy: list }, url, isProxied ? p : undefined]);
}

test.each(rows)("with %j, %s goes by %s", (environment, url, proxy) => {
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
  expect(shown(url)).toBe(proxy);
});

test("a proxy that is named for Pinion goes before the variables, and holds for loopback; NO_PROXY holds still", () => {
  const named = { url: "http://named:8080", setting: "--proxy" };
  vi.stubEnv("HTTPS_PROXY", p);
  vi.stubEnv("NO_PROXY", "inside.test");
  expect(shown("https://pinion.example.org", named)).toBe("http://named:8080");
  expect(shown("http://127.0.0.1:7420", named)).toBe("http://named:8080");
  expect(shown("https://a.inside.test", named)).toBeUndefined();
  expect(shown("https://pinion.example.org", { ...named, url: "none" })).toBeUndefined();
});

test("what is known of a proxy: its credentials decoded, and the setting that named it", () => {
  vi.stubEnv("https_proxy", "http://m%40e:s%3Ae%2Fcret@proxy:3128");
  expect(proxyFor("https://pinion.example.org")).toMatchObject({
    credentials: { name: "m@e", password: "s:e/cret" },
    setting: "https_proxy",
  });
});

test.each([
  ["ftp://proxy:21", /only http, https, socks4 and socks5/],
  ["http://", /no address/],
  ["http://proxy:99999", /no address/],
  ["http://proxy:0", /port 0/],
  ["http://me:100%@proxy:3128", /%25/],
  ["http://me:hush@pro xy", /no address/],
  ["http://me:hu/sh:hush@proxy:3128", /no address/],
])("a setting that names no proxy is told by its name and without its password: %s", (value, words) => {
  vi.stubEnv("HTTPS_PROXY", value);
  const error = (() => {
    try {
      return proxyFor("https://pinion.example.org");
    } catch (error) {
      return error;
    }
  })() as ProxyError;
  expect(error).toBeInstanceOf(ProxyError);
  expect(error.message).toMatch(words);
  expect(error.message).toMatch(/^HTTPS_PROXY is /);
  expect(error.advice).toContain("write HTTPS_PROXY like");
  expect(error.message).not.toMatch(/hush|100%@/);
});
