/**
 * The permitted imports between folders, and forbidden texts by place. The messages give the
 * reason; an exception is rarely the solution.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url)).replace(/\/$/, "");

type Source = { path: string; text: string; imports: Import[] };
/** `to` is a path within the repository, or the name of a package. */
type Import = { to: string; isPackage: boolean };

function listSources(folder: string): Source[] {
  const from = join(root, folder);
  if (!existsSync(from)) return [];
  return readdirSync(from, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.tsx?$/.test(entry.name) && !entry.name.endsWith(".d.ts"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !path.includes("node_modules/"))
    .sort()
    .map((path) => {
      const text = readFileSync(join(root, path), "utf8");
      return { path, text, imports: findImports(path, text) };
    });
}

function findImports(path: string, text: string): Import[] {
  const patterns = [
    /^\s*(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']/gm,
    /^\s*import\s*["']([^"']+)["']/gm,
    /\bimport\(\s*["']([^"']+)["']/g,
  ];
  return patterns
    .flatMap((pattern) => [...text.matchAll(pattern)].map((match) => match[1]!))
    .map((name) => {
      if (name.startsWith(".")) {
        return { to: relative(root, resolve(root, dirname(path), name)), isPackage: false };
      }
      if (name.startsWith("#gen/")) return { to: `clients/ts/src/gen/${name.slice(5)}`, isPackage: false };
      return { to: name, isPackage: true };
    });
}

const sources = ["src", "clients/ts/src", "web/src", "test"].flatMap(listSources);

/** The first matching pattern names the layer. */
const layers: [name: string, pattern: RegExp][] = [
  ["generated", /^clients\/ts\/src\/gen\//],
  ["client", /^clients\/ts\//],
  ["page", /^web\//],
  ["store", /^src\/store\//],
  ["scheduler", /^src\/scheduler\//],
  ["usecases", /^src\/usecases\//],
  ["server", /^src\/server\//],
  ["replica", /^src\/replica\//],
  ["cli", /^src\/cli\//],
  ["leaves", /^src\/((batches|cel|config|network|telemetry|time|values)\/)?[^/]+$/],
  ["test", /^test\//],
];

/** The layers that each layer may import besides itself, and the reason. */
const arrows: Record<string, { may: string[]; why: string }> = {
  leaves: { may: [], why: "what everybody imports must not bring anybody along" },
  store: { may: ["leaves"], why: "SQL knows of no transport and no loop, so that each can change by itself" },
  scheduler: {
    may: ["leaves", "store"],
    why: "a pass decides and writes; how people see it is the server's matter",
  },
  usecases: {
    may: ["leaves", "store", "scheduler"],
    why: "a use-case is one transaction of the store's statements and the scheduler's; the call that asks for it is above",
  },
  server: {
    // docs/decisions/0004-server-on-scheduler.md
    may: ["leaves", "store", "scheduler", "usecases", "generated"],
    why: "a session and an rpc ask for the scheduler's transactions; the replica above them puts them together",
  },
  replica: {
    may: ["leaves", "store", "scheduler", "usecases", "server", "generated"],
    why: "a replica is put together from the parts of the server's side; commands start it",
  },
  cli: {
    may: ["leaves", "store", "scheduler", "usecases", "server", "replica", "client", "generated"],
    why: "a command puts the parts together, and nothing but commands is above it",
  },
  page: {
    may: ["generated"],
    why: "the page is one more client of the API, and everything in it goes over the wire",
  },
  client: { may: ["generated"], why: "the client is a package of its own, for programs that have no server" },
};

function layerOf(path: string): string | undefined {
  return layers.find(([, pattern]) => pattern.test(path))?.[0];
}

function namesPackage(found: Import, name: string): boolean {
  return found.isPackage && (found.to === name || found.to.startsWith(`${name}/`));
}

test("the sources are found", () => {
  expect(sources.length).toBeGreaterThan(20);
  expect(
    sources.find((source) => source.path === "src/store/pg/migrate.ts")?.imports.map(({ to }) => to),
  ).toContain("src/store/pg/database.ts");
});

test("every folder imports only those below it", () => {
  const broken = sources.flatMap((source) => {
    const from = layerOf(source.path);
    const rule = from === undefined ? undefined : arrows[from];
    if (!rule) return [];
    return source.imports
      .filter((found) => !found.isPackage)
      .filter(({ to }) => layerOf(to) !== from && !rule.may.includes(layerOf(to) ?? "nowhere"))
      .map(({ to }) => `${source.path} imports ${to}: ${rule.why}`);
  });
  expect(broken).toEqual([]);
});

/**
 * The folders of src/server, the lowest first: each folder may import the earlier folders, and the
 * files beside the folders.
 */
const serverRooms = ["cluster", "http", "access", "destinations", "device", "platforms", "rpc", "mcp"];

test("the rooms of the server import no room above them", () => {
  const roomOf = (path: string) => /^src\/server\/([^/]+)\//.exec(path)?.[1];
  const inside = sources.filter((source) => roomOf(source.path) !== undefined);
  expect([...new Set(inside.map((source) => roomOf(source.path)))].sort()).toEqual([...serverRooms].sort());
  const broken = inside.flatMap((source) => {
    const level = serverRooms.indexOf(roomOf(source.path) ?? "");
    return source.imports
      .filter(({ to, isPackage }) => !isPackage && serverRooms.indexOf(roomOf(to) ?? "") > level)
      .map(
        ({ to }) => `${source.path} imports ${to}: the rooms, lowest first, are ${serverRooms.join(", ")}`,
      );
  });
  expect(broken).toEqual([]);
});

test("ARCHITECTURE.md draws the folders that are there, and files stand loose only where it says so", () => {
  const drawing = readFileSync(join(root, "ARCHITECTURE.md"), "utf8").split("```")[1] ?? "";
  const listed = (folder: string) => readdirSync(join(root, folder), { withFileTypes: true });
  const folders = listed("src")
    .filter((entry) => entry.isDirectory())
    .map((entry) => `src/${entry.name}`);
  const rooms = ["src/server", "src/store", "src/cli"].flatMap((folder) =>
    listed(folder).flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])),
  );
  const isDrawn = (name: string) => new RegExp(`(^|[\\s(])${name}/`, "m").test(drawing);
  expect([...folders, ...rooms].filter((name) => !isDrawn(name))).toEqual([]);

  const looseMax = { src: 5, "src/store": 0, "src/server": 3, "src/cli": 12 };
  for (const [folder, max] of Object.entries(looseMax)) {
    const loose = listed(folder).filter((entry) => entry.isFile());
    expect(loose.length, `${folder}: a file belongs into one of its rooms`).toBeLessThanOrEqual(max);
  }
});

test("the client imports the server by no other name either", () => {
  const broken = sources
    .filter((source) => layerOf(source.path) === "client")
    .flatMap((source) =>
      source.imports
        .filter((found) => namesPackage(found, "pinion") || found.to.startsWith("#"))
        .map(({ to }) => `${source.path} imports ${to}: the client is a package of its own`),
    );
  expect(broken).toEqual([]);
});

test("nothing imports the tests", () => {
  const broken = [...sources, ...listSources("scripts")]
    .filter((source) => layerOf(source.path) !== "test")
    .flatMap((source) =>
      source.imports
        .filter(({ to, isPackage }) => (!isPackage && layerOf(to) === "test") || to === "vitest")
        .map(
          ({ to }) => `${source.path} imports ${to}: what runs for users does not depend on what tests it`,
        ),
    );
  expect(broken).toEqual([]);
});

test("the database's libraries appear in the store alone", () => {
  const broken = sources
    .filter((source) => /^(src|clients)\//.test(source.path) && layerOf(source.path) !== "store")
    .flatMap((source) =>
      source.imports
        .filter((found) => namesPackage(found, "kysely") || namesPackage(found, "pg"))
        .map(
          ({ to }) =>
            `${source.path} imports ${to}: all SQL is in src/store, where tenancy and bounds are kept`,
        ),
    );
  expect(broken).toEqual([]);
});

test("the log is append-only: no statement outside of retention changes or removes an event", () => {
  const change =
    /\b(update|delete\s+from|truncate|merge\s+into)\s+(only\s+)?"?event(_row)?"?\b(?!_)|(updateTable|deleteFrom|mergeInto)\(\s*["'`]event(_row)?\b/i;
  expect(change.test("delete from event_row where")).toBe(true);
  expect(change.test('db.updateTable("event_row as e")')).toBe(true);
  const changing = sources.filter(({ path, text }) => path.startsWith("src/") && change.test(text));
  expect(changing.map(({ path }) => path)).toEqual(["src/store/work/service/retention.ts"]);
});

test("the environment is read in one place of each package", () => {
  const allowed = new Set([
    "src/environment.ts",
    "clients/ts/src/daemon.ts",
    // The proxies' variables are shared by all programs, and the library that reads them knows no
    // other environment.
    "clients/ts/src/network/proxy.ts",
  ]);
  const broken = sources
    .filter((source) => /^(src|clients)\//.test(source.path) && !allowed.has(source.path))
    .filter((source) =>
      /\bprocess\.env\b|\benv\b[^;\n]*from "node:process"/.test(withoutComments(source.text)),
    )
    .map(
      (source) =>
        `${source.path} reads process.env: settings have one list, one check and one page in the docs`,
    );
  expect(broken).toEqual([]);
});

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}

/** The circles in which names lead to each other, each as a line. */
function circlesOf(graph: ReadonlyMap<string, Iterable<string>>): string[] {
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (name: string, trail: string[]) => {
    const at = trail.indexOf(name);
    if (at >= 0) circles.push([...trail.slice(at), name].join(" → "));
    if (at >= 0 || done.has(name)) return;
    for (const next of graph.get(name) ?? []) visit(next, [...trail, name]);
    done.add(name);
  };
  for (const name of graph.keys()) visit(name, []);
  return circles;
}

test("no imports go in a circle, of files or of the folders of src", () => {
  const files = new Map<string, string[]>();
  const folders = new Map<string, Set<string>>();
  const folderOf = (path: string) => /^src\/[^/]+\//.exec(path)?.[0];
  for (const { path, imports } of sources) {
    const own = imports.filter((found) => !found.isPackage).map(({ to }) => to);
    files.set(path, own);
    const folder = folderOf(path);
    if (!folder) continue;
    const others = folders.get(folder) ?? new Set();
    folders.set(folder, others);
    for (const other of own.map(folderOf)) if (other && other !== folder) others.add(other);
  }
  expect(folders.size).toBeGreaterThan(10);
  expect(circlesOf(folders)).toEqual([]);
  expect(circlesOf(files)).toEqual([]);
});

/** Not checked: texts of other authors, and this list of forbidden words. */
const othersText =
  /^(proto\/(buf|google|grpc)\/|clients\/ts\/src\/gen\/|test\/unit\/architecture\.test\.ts$|LICENSE)/;

const forbidden: [what: string, pattern: RegExp][] = [
  ["a machine's path", /(?<![\w.~$}*-])\/(?:work|root|Users)\/[\w.-]+/],
  ["a registry's address", /https?:\/\/[^\s"'`)]*(?:registry|artifactory|jfrog|nexus|\bnpm\.)[^\s"'`)]*/i],
  ["a registry's address", /"resolved":\s*"https?:/],
];

/** This clone's path and this user's home, if long enough to be unambiguous. */
const local = [root, homedir()].filter((path) => path.split("/").length > 2);

test("no file names a machine's paths or a registry", () => {
  const listed = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
    cwd: root,
    encoding: "utf8",
  });
  const found = listed
    .split("\n")
    .filter((path) => path !== "" && !othersText.test(path))
    .filter((path) => statSync(join(root, path), { throwIfNoEntry: false })?.isFile())
    .flatMap((path) => {
      const text = readFileSync(join(root, path), "utf8");
      const named = forbidden.filter(([, pattern]) => pattern.test(text));
      const paths = local.filter((machinePath) => text.includes(machinePath));
      return [
        ...named.map(([what, pattern]) => `${path} names ${what}: ${pattern.exec(text)?.[0]}`),
        ...paths.map((machinePath) => `${path} names a path of this machine: ${machinePath}`),
      ];
    });
  expect(found).toEqual([]);
});
