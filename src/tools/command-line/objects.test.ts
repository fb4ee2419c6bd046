import { describe, expect, test } from 'vitest';
import { HelpRequest } from '../failure.ts';
import { ObjectList } from './objects.ts';

describe('objects (T-GEN-13)', () => {
  const accepted = [
    'secret,id=s,data=x',
    'secret,id=s,data=',
    'secret,id=s,data=a,,b,',
    'secret,id=a.b-c_d,data=eHg=,format=base64',
    'id=s,qom-type=secret,data=x',
    '{"qom-type": "secret", "id": "s", "data": "x"}',
  ];
  for (const text of accepted) {
    test(`${text} is taken`, () => expect(() => new ObjectList().add(text)).not.toThrow());
  }

  const refused: readonly (readonly [string, string])[] = [
    ['zork', "Parameter 'qom-type' does not accept value 'zork'"],
    ['', "Parameter 'qom-type' is missing"],
    ['id=s,data=x', "Parameter 'qom-type' is missing"],
    ['secret', "Parameter 'id' is missing"],
    ['secret,data=x', "Parameter 'id' is missing"],
    ['secret,id=s', "Either 'file' or 'data' must be provided"],
    ['secret,id=s,data=x,foo=1', "Parameter 'foo' is unexpected"],
    ['secret,id=s,data=x,format=zork', "Parameter 'format' does not accept value 'zork'"],
    ['secret,id=s,data=e!g=,format=base64', 'Base64 data contains invalid characters'],
    ['secret,id=s,data=x,keyid=k', "No secret with id 'k'"],
    ['secret,id=1s,data=x', "Parameter 'id' expects an identifier"],
    ['secret,id=s,data=x,file=y', "'file' and 'data' are mutually exclusive"],
    ['secret,id=s,data', "Expected '=' after parameter 'data'"],
    ['{"qom-type":"secret","id":"s","data":3}', "Invalid parameter type for 'data', expected: string"],
    [
      'secret,id=s,file=/nope/nope',
      'Unable to read /nope/nope: Failed to open file “/nope/nope”: No such file or directory',
    ],
  ];
  for (const [text, message] of refused) {
    test(`${text}: ${message}`, () => expect(() => new ObjectList().add(text)).toThrow(message));
  }

  test('names are used once; a later one may name an earlier one as its key', () => {
    const objects = new ObjectList();
    objects.add('secret,id=master,data=x');
    objects.add('secret,id=s,data=x,keyid=master');
    expect(() => objects.add('secret,id=s,data=y')).toThrow(
      "attempt to add duplicate property 's' to object (type 'container')",
    );
  });

  test('help lists types, or the properties of one', () => {
    const help = (text: string) => {
      try {
        new ObjectList().add(text);
      } catch (error) {
        if (error instanceof HelpRequest) return error.about;
        throw error;
      }
    };
    expect(help('help')).toBe('List of user creatable objects:\n  secret\n');
    expect(help('secret,help')).toMatch(/^secret options:\n {2}data=<string>\n {2}file=<string>\n/);
  });
});
