/**
 * gRPC server reflection, v1 and v1alpha: `buf curl` and `grpcurl` learn from it the rpcs of the
 * server.
 */
import {
  type DescEnum,
  type DescExtension,
  type DescFile,
  type DescMessage,
  type DescService,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { ServerReflection as ReflectionV1 } from "#gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ReflectionV1alpha } from "#gen/grpc/reflection/v1alpha/reflection_pb.js";

/**
 * Registers both versions. They describe themselves, the given services and all types used by the
 * services.
 */
export function registerReflection(router: ConnectRouter, services: readonly DescService[]): void {
  let built: Catalog | undefined;
  // Built by the first request: most replicas are never asked.
  const catalog = () => {
    built ??= buildCatalog([...services, ReflectionV1, ReflectionV1alpha]);
    return built;
  };
  router.service(ReflectionV1, { serverReflectionInfo: (requests) => answerAll(catalog(), requests) });
  router.service(ReflectionV1alpha, { serverReflectionInfo: (requests) => answerAll(catalog(), requests) });
}

type Catalog = {
  /** Full names, sorted. */
  services: string[];
  /** By name, with `.proto`. */
  files: Map<string, DescFile>;
  /** The file that declares a full name: types, fields, values, services, methods, extensions. */
  symbols: Map<string, DescFile>;
  /** By the extended type's full name and the field's number. */
  extensions: Map<string, Map<number, DescFile>>;
};

function buildCatalog(services: DescService[]): Catalog {
  const catalog: Catalog = {
    services: services.map((service) => service.typeName).sort(),
    files: new Map(),
    symbols: new Map(),
    extensions: new Map(),
  };
  for (const service of services) addFile(catalog, service.file);
  return catalog;
}

function addFile(catalog: Catalog, file: DescFile): void {
  if (catalog.files.has(file.proto.name)) return;
  catalog.files.set(file.proto.name, file);
  for (const dependency of file.dependencies) addFile(catalog, dependency);
  for (const message of file.messages) addMessage(catalog, message);
  for (const declared of file.enums) addEnum(catalog, declared);
  for (const extension of file.extensions) addExtension(catalog, extension);
  for (const service of file.services) {
    catalog.symbols.set(service.typeName, file);
    for (const method of service.methods) catalog.symbols.set(`${service.typeName}.${method.name}`, file);
  }
}

function addMessage(catalog: Catalog, message: DescMessage): void {
  catalog.symbols.set(message.typeName, message.file);
  for (const member of [...message.fields, ...message.oneofs]) {
    catalog.symbols.set(`${message.typeName}.${member.name}`, message.file);
  }
  for (const nested of message.nestedMessages) addMessage(catalog, nested);
  for (const nested of message.nestedEnums) addEnum(catalog, nested);
  for (const nested of message.nestedExtensions) addExtension(catalog, nested);
}

function addEnum(catalog: Catalog, declared: DescEnum): void {
  catalog.symbols.set(declared.typeName, declared.file);
  // A value's name stands beside the name of its enum, not below.
  const scope = declared.typeName.slice(0, declared.typeName.lastIndexOf(".") + 1);
  for (const value of declared.values) catalog.symbols.set(`${scope}${value.name}`, declared.file);
}

function addExtension(catalog: Catalog, extension: DescExtension): void {
  catalog.symbols.set(extension.typeName, extension.file);
  const extended = extension.extendee.typeName;
  const numbers = catalog.extensions.get(extended) ?? new Map<number, DescFile>();
  catalog.extensions.set(extended, numbers.set(extension.number, extension.file));
}

/** The fields common to the requests of both versions. */
type Request = {
  host: string;
  messageRequest:
    | {
        case: "fileByFilename" | "fileContainingSymbol" | "allExtensionNumbersOfType" | "listServices";
        value: string;
      }
    | { case: "fileContainingExtension"; value: { containingType: string; extensionNumber: number } }
    | { case: undefined; value?: undefined };
};

async function* answerAll<R extends Request>(catalog: Catalog, requests: AsyncIterable<R>) {
  // A stream sends each file once, unless a request names the file itself.
  const sent = new Set<DescFile>();
  for await (const request of requests) {
    yield {
      validHost: request.host,
      originalRequest: request,
      messageResponse: answer(catalog, request.messageRequest, sent),
    };
  }
}

function answer(catalog: Catalog, request: Request["messageRequest"], sent: Set<DescFile>) {
  switch (request.case) {
    case "fileByFilename":
      return describe(catalog.files.get(request.value), `the file ${request.value}`, sent);
    case "fileContainingSymbol":
      return describe(
        catalog.symbols.get(request.value.replace(/^\./, "")),
        `the symbol ${request.value}`,
        sent,
      );
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = request.value;
      const file = catalog.extensions.get(containingType)?.get(extensionNumber);
      return describe(file, `the extension ${extensionNumber} of ${containingType}`, sent);
    }
    case "allExtensionNumbersOfType": {
      if (!catalog.symbols.has(request.value))
        return failure(Code.NotFound, `the type ${request.value} is unknown`);
      const numbers = [...(catalog.extensions.get(request.value)?.keys() ?? [])].sort((a, b) => a - b);
      return {
        case: "allExtensionNumbersResponse" as const,
        value: { baseTypeName: request.value, extensionNumber: numbers },
      };
    }
    case "listServices":
      return {
        case: "listServicesResponse" as const,
        value: { service: catalog.services.map((name) => ({ name })) },
      };
    case undefined:
      return failure(Code.InvalidArgument, "the request asks for nothing");
  }
}

function describe(file: DescFile | undefined, what: string, sent: Set<DescFile>) {
  if (!file) return failure(Code.NotFound, `${what} is unknown`);
  const files = [file];
  sent.add(file);
  // The loop reaches the files that it adds, too.
  for (const { dependencies } of files) {
    for (const dependency of dependencies) {
      if (sent.has(dependency)) continue;
      sent.add(dependency);
      files.push(dependency);
    }
  }
  const fileDescriptorProto = files.map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: "fileDescriptorResponse" as const, value: { fileDescriptorProto } };
}

function failure(errorCode: Code, errorMessage: string) {
  return { case: "errorResponse" as const, value: { errorCode, errorMessage } };
}
