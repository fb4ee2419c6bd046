/** `--object` (T-GEN-13): secrets, throttle groups, and what NBD needs. Each is checked as soon as it is read from the command line. */
import type { Host } from '../../core/host.ts';
import { type JsonValue, parseJson } from '../../core/json.ts';
import { flattenOptions, type NestedOptions } from '../../core/options.ts';
import { secrets } from '../../crypto/secrets.ts';
import { throttleGroups } from '../../filters/throttle/groups.ts';
import { describeLimits, parseLimits, type ThrottleLimits, UNLIMITED } from '../../filters/throttle/limits.ts';
import { Failure, HelpRequest } from '../failure.ts';
import { NBD_OBJECTS, NbdObjects, type ObjectProperties } from './nbd-objects.ts';
import { readSecret, SECRET_PROPERTIES } from './secret.ts';

const SECRET = 'secret';
const THROTTLE_GROUP = 'throttle-group';

type Properties = Record<string, string>;
type JsonObject = { readonly [key: string]: JsonValue };

/** The objects of a command line. */
export class ObjectList {
  readonly #ids = new Set<string>();
  readonly #secrets = new Map<string, Uint8Array>();
  /** TLS credentials and authorizations. */
  readonly nbd: NbdObjects = new NbdObjects((id) => this.#secretOf(id));
  readonly #groups = new Map<string, ThrottleLimits>();

  /** Throws Failure, and HelpRequest where help is asked for. */
  add(text: string): void {
    const json = text.startsWith('{') ? parseJson(text) : undefined;
    const properties = json === undefined ? this.#parseKeyValues(text) : this.#jsonTexts(json);
    const { 'qom-type': type, id, ...rest } = properties;
    if (type === undefined) throw new Failure("Parameter 'qom-type' is missing");
    if (type === THROTTLE_GROUP) {
      this.#addGroup(id, json === undefined ? parseLimits(rest, UNLIMITED, 'text') : jsonLimits(json));
      return;
    }
    if (Object.hasOwn(NBD_OBJECTS, type)) {
      const nested = json === undefined ? rest : (({ 'qom-type': _type, id: _id, ...own }) => own)(json as JsonObject);
      this.#addNbdObject(type, id, nested);
      return;
    }
    if (type !== SECRET) throw new Failure(`Parameter 'qom-type' does not accept value '${type}'`);
    if (id === undefined) throw new Failure("Parameter 'id' is missing");
    checkId(id);
    const secret = readSecret(rest, this.#secrets);
    this.#claim(id);
    this.#secrets.set(id, secret);
  }

  #addNbdObject(type: string, id: string | undefined, properties: ObjectProperties): void {
    if (id === undefined) throw new Failure("Parameter 'id' is missing");
    checkId(id);
    this.#claim(id);
    this.nbd.add(type, id, properties);
  }

  #secretOf(id: string): string {
    const found = this.#secrets.get(id);
    if (found === undefined) throw new Failure(`No secret with id '${id}'`);
    return new TextDecoder().decode(found);
  }

  /** Makes the objects known to what is opened on `host`. */
  provideTo(host: Host): void {
    for (const [id, limits] of this.#groups) throttleGroups(host).add(id, limits);
    for (const [id, secret] of this.#secrets) secrets(host).set(id, secret);
    this.nbd.provideTo(host);
  }

  #addGroup(id: string | undefined, limits: ThrottleLimits): void {
    if (id === undefined) throw new Failure("Parameter 'id' is missing");
    checkId(id);
    this.#claim(id);
    this.#groups.set(id, limits);
  }

  #claim(id: string): void {
    if (this.#ids.has(id)) {
      throw new Failure(`attempt to add duplicate property '${id}' to object (type 'container')`);
    }
    this.#ids.add(id);
  }

  #jsonTexts(parsed: JsonValue): Properties {
    const properties: Properties = {};
    for (const [key, value] of Object.entries(parsed ?? {})) {
      if (typeof value !== 'string' && (key === 'id' || key === 'qom-type' || Object.hasOwn(SECRET_PROPERTIES, key))) {
        throw new Failure(`Invalid parameter type for '${key}', expected: string`);
      }
      properties[key] = typeof value === 'string' ? value : JSON.stringify(value);
    }
    return properties;
  }

  #parseKeyValues(text: string): Properties {
    const properties: Properties = {};
    let wantsHelp = false;
    // A doubled comma stands for one in a value.
    const items = text.replaceAll(',,', '\0').split(',');
    if (items.length > 1 && items.at(-1) === '') items.pop();
    items.forEach((item, index) => {
      const equals = item.indexOf('=');
      const key = (equals < 0 ? item : item.slice(0, equals)).replaceAll('\0', ',');
      if (item === 'help' || item === '?') wantsHelp = true;
      else if (equals >= 0 && key !== '') properties[key] = item.slice(equals + 1).replaceAll('\0', ',');
      else if (index === 0 && text === '') return;
      else if (key === '') throw new Failure("Invalid parameter ''");
      else if (index === 0) properties['qom-type'] = key;
      else throw new Failure(`Expected '=' after parameter '${key}'`);
    });
    if (wantsHelp) throw new HelpRequest(objectHelp(properties['qom-type']));
    return properties;
  }
}

/** JSON limits, nested as they are given. */
function jsonLimits(json: JsonValue): ThrottleLimits {
  const { 'qom-type': _type, id: _id, ...rest } = json as { [key: string]: JsonValue };
  return parseLimits(flattenOptions(rest as NestedOptions));
}

function checkId(id: string): void {
  if (/^[A-Za-z][A-Za-z0-9._-]*$/.test(id)) return;
  const hint = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";
  throw new Failure("Parameter 'id' expects an identifier", { hint });
}

function objectHelp(type: string | undefined): string {
  if (type === THROTTLE_GROUP) {
    // Longer names come first, as other programs list them.
    const names = Object.keys(describeLimits(UNLIMITED)).sort((a, b) => compareTexts(`${a}~`, `${b}~`));
    return `${type} options:\n  limits=<ThrottleLimits>\n${names.map((name) => `  x-${name}=<int>\n`).join('')}`;
  }
  const properties: Readonly<Record<string, Readonly<Record<string, string>>>> = {
    ...NBD_OBJECTS,
    [SECRET]: SECRET_PROPERTIES,
  };
  const found = type !== undefined && Object.hasOwn(properties, type) ? properties[type] : undefined;
  if (found === undefined) {
    const types = [...Object.keys(properties), THROTTLE_GROUP].sort(compareTexts);
    return `List of user creatable objects:\n${types.map((each) => `  ${each}\n`).join('')}`;
  }
  const lines = Object.entries(found).map(([name, kind]) => `  ${name}=<${kind}>\n`);
  return `${type} options:\n${lines.join('')}`;
}

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
