-- args: a field, and the number of records. Returns '' and the field of each record.
local found = { '' }
for index = 1, args[2] do found[index + 1] = records[index] and records[index][args[1]] or '' end
return found
