import{ya as n}from"./chunk-O7JQQEL3.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
