/**
 * The web page in a real browser: the headless shell of Chromium, or else another installed
 * Chromium, whose windows cost five times the processor time.
 */
import { accessSync, constants, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { afterEach, beforeAll, expect } from "vitest";

const names = [
  "chromium-headless-shell",
  "chrome-headless-shell",
  "chromium",
  "chromium-browser",
  "google-chrome",
  "google-chrome-stable",
];
/** The time limit of a test's wait for an element, in milliseconds. */
const patienceMs = 15_000;
/** The time zone of pages. */
const zone = "Europe/Berlin";

/** The browser's program; undefined if this machine has none. */
export const browserPath = findBrowser();

if (!browserPath) {
  console.error(
    `NOTICE: the tests of the web page are skipped, for none of ${names.join(", ")} is installed. Debian: apt-get install chromium-headless-shell. Elsewhere: PINION_CHROMIUM=<path>.`,
  );
}

function findBrowser(): string | undefined {
  const given = process.env.PINION_CHROMIUM;
  const found = (process.env.PATH ?? "")
    .split(delimiter)
    .flatMap((dir) => names.map((name) => join(dir, name)));
  return [...(given ? [given] : []), ...found].find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * For a replica: a hand-driven device sends no heartbeats by itself, and a page takes its time on a
 * busy machine.
 */
export const patient = { PINION_HEARTBEAT_TTL_MS: "60000" };

export type PageOptions = {
  width?: number;
  height?: number;
  scheme?: "light" | "dark";
  timeZone?: string;
  /**
   * Console errors that do not fail the test; of a server that is stopped on purpose, for example.
   */
  expected?: RegExp;
};

export type TestBrowser = {
  /** The page of a server, at a place behind "#". */
  open(url: string, place?: string, options?: PageOptions): Promise<Page>;
  /** The same, signed in, by the call that the page itself makes for a token. */
  signIn(replica: { url: string; token: string }, place?: string, options?: PageOptions): Promise<Page>;
};

/**
 * The browser of this worker's test files, with a context that serves the first page of each test.
 * The context's pages share a process, whose scripts are compiled already: a page costs half as
 * much as a page of a context of its own.
 */
type Shared = { browser: Browser; context: BrowserContext; keeper: Page };

let running: Promise<Shared> | undefined;

async function sharedBrowser(): Promise<Shared> {
  const shared = await running?.catch(() => undefined);
  if (shared?.browser.isConnected()) return shared;
  running = launch();
  return running;
}

async function launch(): Promise<Shared> {
  const browser = await chromium.launch({
    executablePath: browserPath!,
    // Chromium's sandbox does not run as root, and containers have little shared memory.
    args: [
      ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
      ...["--disable-dev-shm-usage", "--process-per-site"],
    ],
  });
  const context = await newContext(browser);
  return { browser, context, keeper: await keepProcess(context) };
}

function newContext(browser: Browser, timezoneId = zone): Promise<BrowserContext> {
  return browser.newContext({
    // The certificates of the tests are their own.
    ignoreHTTPSErrors: true,
    timezoneId,
    permissions: ["clipboard-read", "clipboard-write"],
    // An endless animation is drawn sixty times a second, by the processor.
    reducedMotion: "reduce",
  });
}

/** An empty page of the site of all replicas: the site's process lives as long as the page. */
async function keepProcess(context: BrowserContext): Promise<Page> {
  const page = await context.newPage();
  await page.route("http://127.0.0.1/", (route) => route.fulfill({ body: "", contentType: "text/html" }));
  await page.goto("http://127.0.0.1/");
  return page;
}

/** Leaves the shared context as it was before a test: no page, no cookie, no other context. */
async function tidy({ browser, context, keeper }: Shared): Promise<void> {
  for (const other of browser.contexts()) if (other !== context) await other.close();
  for (const page of context.pages()) if (page !== keeper) await page.close();
  await context.setOffline(false);
  await context.clearCookies();
}

/**
 * A browser for the tests of a file. The first page of a test has no cookie; each further page has
 * a context of its own, like another person's browser. A test fails if its pages wrote an error to
 * the console, where the browser also reports violations of the content security policy.
 */
export function useBrowser(): TestBrowser {
  let shared: Shared;
  let isFirst = true;
  const complaints: string[] = [];

  beforeAll(async () => {
    shared = await sharedBrowser();
  });
  afterEach(async () => {
    await tidy(shared);
    isFirst = true;
    const heard = complaints.splice(0);
    expect(heard, "what the page's console complained of").toEqual([]);
  });

  async function newPage(options: PageOptions): Promise<Page> {
    const isShared = isFirst && (options.timeZone ?? zone) === zone;
    isFirst = false;
    const context = isShared ? shared.context : await newContext(shared.browser, options.timeZone);
    const page = await context.newPage();
    page.setDefaultTimeout(patienceMs);
    await page.setViewportSize({ width: options.width ?? 1280, height: options.height ?? 800 });
    await page.emulateMedia({ colorScheme: options.scheme ?? "light" });
    const complain = (text: string) => {
      if (!options.expected?.test(text)) complaints.push(text);
    };
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") complain(message.text());
    });
    page.on("pageerror", (error) => complain(error.stack ?? error.message));
    return page;
  }

  return {
    async open(url, place = "", options = {}) {
      const page = await newPage(options);
      await page.goto(`${url}/${place}`);
      return page;
    },
    async signIn({ url, token }, place = "", options = {}) {
      const page = await newPage(options);
      await takeCookie(page.context(), url, token);
      await page.goto(`${url}/${place}`);
      await untilLive(page);
      return page;
    },
  };
}

/** Signs a context's pages in, as the form does; test/e2e/page/sign-in has the form. */
async function takeCookie(context: BrowserContext, url: string, token: string): Promise<void> {
  const answer = await context.request.post(`${url}/pinion.v1.SignInService/SignIn`, {
    headers: { origin: new URL(url).origin, "sec-fetch-site": "same-origin" },
    data: { token },
  });
  expect(answer.status(), "the status of the sign-in").toBe(200);
}

/** Waits until the event stream is open, so that no later event is missed. */
export async function untilLive(page: Page): Promise<void> {
  await page.locator(".live-state").getByText("live", { exact: true }).waitFor();
}

export async function enterToken(page: Page, token: string): Promise<void> {
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
}

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Rules of axe-core whose result depends on colours. */
const rulesOfColours = ["color-contrast", "link-in-text-block"];

/**
 * The serious and critical findings of axe-core on the current page; with `of: "colours"` of the
 * rules about colours alone, for a page whose other findings are known.
 */
export async function findBarriers(page: Page, options: { of?: "colours" } = {}): Promise<string[]> {
  // Through the debugger, because the page's policy does not apply there. The page keeps it.
  if ((await page.evaluate("typeof axe")) === "undefined") await page.evaluate(axeSource);
  const asked = {
    resultTypes: ["violations"],
    ...(options.of ? { runOnly: { type: "rule", values: rulesOfColours } } : {}),
  };
  return page.evaluate(`axe.run(document, ${JSON.stringify(asked)}).then(({ violations }) => violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => id + ": " + nodes.slice(0, 3).map((node) => node.html.slice(0, 160) + " " + (node.any[0]?.message ?? "")).join(" | ")))`);
}
